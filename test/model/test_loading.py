"""
Loading takes little of the host's memory, and only what is needed is loaded.

What is measured is the peak of the resident memory of a process of its own while it loads, less
what it held before, less the loaded weights: on a machine with a GPU those would be there. The
files are mapped, so the pages that were read count as resident although the system can take them
back; they are counted here as well.
"""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from safetensors.torch import save_file
import torch
from transformers import UMT5Config, UMT5EncoderModel

from lingbot_va_ros.model.checkpoint import destinations, unread_shapes
from lingbot_va_ros.model.video_vae import load_video_vae
from lingbot_va_ros.specs.checkpoint_config import read_transformer_config

CPU = torch.device('cpu')
SHARDS = 4
CONFIG = {
    'num_layers': 8, 'num_attention_heads': 8, 'attention_head_dim': 60, 'ffn_dim': 2048,
    'in_channels': 48, 'action_dim': 30, 'text_dim': 64, 'freq_dim': 64}

MEASURE = '''
import sys
from pathlib import Path
import torch
from safetensors.torch import load_file
from lingbot_va_ros.model.checkpoint import load_transformer, weight_files
from lingbot_va_ros.model.text_encoder import load_text_encoder


def naive(folder, device, dtype):
    """Read everything, then copy: what must be seen to fail."""
    weights = {}
    for path in weight_files(folder):
        weights.update(load_file(path))
    network = torch.nn.ParameterDict()
    for name, tensor in weights.items():
        network[name.replace('.', '_')] = tensor.to(dtype).clone()
    return network


def resident(field):
    with open('/proc/self/status') as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith(field))


load = {'transformer': load_transformer, 'naive': naive,
        'text': lambda *arguments: load_text_encoder(*arguments).model}[sys.argv[1]]
torch.set_num_threads(1)
with open('/proc/self/clear_refs', 'w') as file:
    file.write('5')  # forget the peak so far
before = resident('VmRSS')
network = load(Path(sys.argv[2]), torch.device('cpu'), getattr(torch, sys.argv[3]))
weights = sum(weight.numel() * weight.element_size() for weight in network.parameters())
print(resident('VmHWM') - before - weights, weights)
'''


def measure(what, folder, dtype):
    """Return the bytes that loading took beside the weights, and those of the weights."""
    try:
        with open('/proc/self/clear_refs', 'w') as file:
            file.write('5')
    except OSError as error:
        pytest.skip(f'this system does not let a process forget its peak of memory: {error}')
    done = subprocess.run([sys.executable, '-c', MEASURE, what, str(folder), dtype],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return tuple(map(int, done.stdout.split()))


def largest(folder):
    return max(path.stat().st_size for path in folder.glob('*.safetensors'))


@pytest.fixture(scope='module')
def transformer(tmp_path_factory):
    """Return a transformer/ folder of some 140 MB in shards."""
    folder = tmp_path_factory.mktemp('transformer')
    (folder / 'config.json').write_text(json.dumps(CONFIG))
    config = read_transformer_config(folder / 'config.json')
    shapes = {name: place.shape for name, place in destinations(config).items()}
    shapes.update(unread_shapes(config))
    shards, total = [{}], sum(map(math.prod, shapes.values()))
    for name, shape in shapes.items():
        if sum(tensor.numel() for tensor in shards[-1].values()) > total / SHARDS:
            shards.append({})
        shards[-1][name] = torch.full(shape, 0.5)
    places = {}
    for number, shard in enumerate(shards):
        save_file(shard, str(folder / f'part-{number}.safetensors'))
        places.update(dict.fromkeys(shard, f'part-{number}.safetensors'))
    (folder / 'part.safetensors.index.json').write_text(json.dumps({'weight_map': places}))
    return folder


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_the_transformer_takes_less_than_1_3_shards_of_the_hosts_memory(transformer, dtype):
    beside, weights = measure('transformer', transformer, dtype)
    assert weights > (2 if dtype == 'float32' else 1) * 60e6
    assert beside < 1.3 * largest(transformer)


def test_the_measurement_sees_a_loader_that_holds_all_shards(transformer):
    beside, _ = measure('naive', transformer, 'float32')
    assert beside > 2 * largest(transformer)


def test_the_text_encoder_takes_less_than_1_3_shards_of_the_hosts_memory(tmp_path):
    with torch.device('meta'):
        model = UMT5EncoderModel(UMT5Config(
            vocab_size=16000, d_model=512, d_kv=64, d_ff=2048, num_layers=4, num_heads=8,
            is_encoder_decoder=False))
    folder = tmp_path / 'text_encoder'
    model = model.to_empty(device='cpu')
    for weight in model.parameters():
        weight.data.fill_(0.5)
    model.save_pretrained(str(folder), max_shard_size='40MB')
    assert len(list(folder.glob('*.safetensors'))) > 2
    beside, weights = measure('text', tmp_path, 'bfloat16')
    assert weights > 45e6
    assert beside < 1.3 * largest(folder)


def test_the_decoder_is_read_when_it_is_first_needed(untrained_checkpoint):
    vae = load_video_vae(untrained_checkpoint / 'vae', CPU, torch.float32)
    decoder = [vae.autoencoder.decoder, vae.autoencoder.post_quant_conv]
    assert {weight.device.type for part in decoder for weight in part.parameters()} == {'meta'}
    with torch.inference_mode():
        first = vae.decode(torch.zeros(1, 48, 2, 2, 2))
        second = vae.decode(torch.zeros(1, 48, 2, 2, 2))
    assert {weight.device.type for part in decoder for weight in part.parameters()} == {'cpu'}
    assert torch.equal(first, second) and np.isfinite(first.numpy()).all()


def test_loaded_weights_do_not_change_with_the_file(untrained_checkpoint, tmp_path):
    data = (untrained_checkpoint / 'vae' / 'diffusion_pytorch_model.safetensors').read_bytes()
    (tmp_path / 'config.json').write_bytes(
        (untrained_checkpoint / 'vae' / 'config.json').read_bytes())
    path = tmp_path / 'diffusion_pytorch_model.safetensors'
    path.write_bytes(data)
    vae = load_video_vae(tmp_path, CPU, torch.float32)
    weights = vae.autoencoder.encoder.state_dict()
    before = {name: tensor.clone() for name, tensor in weights.items()}
    with open(path, 'r+b') as file:  # in place, as a download does that begins anew
        file.write(bytes(len(data)))
    for name, tensor in vae.autoencoder.encoder.state_dict().items():
        assert torch.equal(tensor, before[name]), name
