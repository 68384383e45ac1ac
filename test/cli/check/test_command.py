"""`lingbot_va check` reports all faults of checkpoint, policy and embodiment in one run."""

import json
import os
import resource
import shutil
import struct
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file
import torch
from transformers import UMT5Config, UMT5EncoderModel
import yaml

from lingbot_va_ros.cli.check import command as check
from lingbot_va_ros.cli.main import main
from lingbot_va_ros.model.checkpoint import destinations, unread_shapes
from lingbot_va_ros.model.random_checkpoint import MIXTURE, write_random_checkpoint
from lingbot_va_ros.model.text_encoder import load_text_encoder
from lingbot_va_ros.model.video_vae import AutoencoderKLWan
from lingbot_va_ros.nodes.images import bridge
from lingbot_va_ros.nodes.images.bridge import BridgeReport
from lingbot_va_ros.policy.inference.load import EngineConfig, load_engine
from lingbot_va_ros.resources import shared_file
from lingbot_va_ros.specs.checkpoint_config import TransformerConfig
from lingbot_va_ros.specs.policy_file import load_policy_file

DIFFUSION = 'diffusion_pytorch_model.safetensors'


@pytest.fixture
def checkpoint(untrained_checkpoint, tmp_path):
    """Return a copy of a whole checkpoint, to be damaged."""
    return shutil.copytree(untrained_checkpoint, tmp_path / 'checkpoint')


@pytest.fixture
def run(tmp_path):
    """Return a function that runs the command and returns exit code and JSON."""
    def run_check(*words):
        path = tmp_path / 'found.json'
        code = main(['check', *map(str, words), '--json', str(path)])
        found = json.loads(path.read_text())
        assert found['ok'] == (code == 0)
        assert found['ok'] == ('error' not in {each['severity'] for each in found['findings']})
        return code, found
    return run_check


def errors(found):
    return [(each['where'], each['message']) for each in found['findings']
            if each['severity'] == 'error']


def change_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_weights(folder, change, name=DIFFUSION):
    tensors = load_file(str(folder / name))
    change(tensors)
    save_file(tensors, str(folder / name))


def shard(folder):
    """Split the weights of a folder into three files with an index."""
    tensors = load_file(str(folder / DIFFUSION))
    (folder / DIFFUSION).unlink()
    names, places = sorted(tensors), {}
    for number in range(3):
        file = f'part-{number}.safetensors'
        save_file({name: tensors[name] for name in names[number::3]}, str(folder / file))
        places.update(dict.fromkeys(names[number::3], file))
    (folder / f'{DIFFUSION}.index.json').write_text(json.dumps({'weight_map': places}))


def change_policy(root, **changes):
    path = root / 'policy.yaml'
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))


def missing_shard(root):
    shard(root / 'transformer')
    (root / 'transformer' / 'part-1.safetensors').unlink()


def shard_without_a_key(root):
    shard(root / 'transformer')
    change_weights(root / 'transformer', lambda tensors: tensors.pop('proj_out.weight'),
                   next(path.name for path in (root / 'transformer').glob('part-*')
                        if 'proj_out.weight' in load_file(str(path))))


def truncate(path, less=1000):
    path.write_bytes(path.read_bytes()[:-less])


def quantize(tensors):
    tensors['blocks.0.ffn.net.0.proj.weight'] = (
        tensors['blocks.0.ffn.net.0.proj.weight'].to(torch.int8))


DAMAGES = {
    'missing file': (
        lambda root: (root / 'vae' / DIFFUSION).unlink(),
        'vae', 'holds 0 .safetensors files and no index'),
    'missing folder': (
        lambda root: shutil.rmtree(root / 'text_encoder'),
        'text_encoder/config.json', 'does not exist'),
    'truncated safetensors': (
        lambda root: truncate(root / 'transformer' / DIFFUSION),
        f'transformer/{DIFFUSION}', 'cannot be read'),
    'no safetensors': (
        lambda root: (root / 'text_encoder' / 'model.safetensors').write_text('weights'),
        'text_encoder/model.safetensors', 'cannot be read'),
    'missing shard': (
        missing_shard, 'transformer/part-1.safetensors',
        'does not exist, but the index names it'),
    'shard without a key of the index': (
        shard_without_a_key, '', 'lacks proj_out.weight, which the index lists in it'),
    'index that is none': (
        lambda root: (root / 'transformer' / f'{DIFFUSION}.index.json').write_text('{}'),
        'transformer', 'is not a safetensors index'),
    'misshapen key': (
        lambda root: change_weights(root / 'transformer', lambda tensors: tensors.update(
            {'action_embedder.weight': torch.zeros(7, 30)})),
        'transformer', 'action_embedder.weight has the shape [7, 30], expected [96, 30]'),
    'missing key': (
        lambda root: change_weights(
            root / 'vae', lambda tensors: tensors.pop('encoder.conv_in.weight')),
        'vae', 'missing encoder.conv_in.weight [4, 12, 3, 3, 3]'),
    'extra key': (
        lambda root: change_weights(root / 'transformer', lambda tensors: tensors.update(
            {'blocks.9.attn1.to_q.weight': torch.zeros(2, 2)})),
        'transformer', 'extra blocks.9.attn1.to_q.weight [2, 2]'),
    'quantized weights': (
        lambda root: change_weights(root / 'transformer', quantize),
        f'transformer/{DIFFUSION}',
        '1 tensors of I8 (blocks.0.ffn.net.0.proj.weight …); expected F16, BF16, F32, F64'),
    'wrong JSON': (
        lambda root: (root / 'vae' / 'config.json').write_text('{"z_dim": 48'),
        'vae/config.json', 'is not JSON'),
    "another model's config": (
        lambda root: (root / 'transformer' / 'config.json').write_text(json.dumps(
            {'_class_name': 'FluxTransformer2DModel', 'num_layers': 19, 'in_channels': 64})),
        'transformer/config.json', 'is not the config of a LingBot-VA transformer'),
    "another model's VAE": (
        lambda root: change_json(root / 'vae' / 'config.json', z_dim=16, latents_mean=[0.0] * 16,
                                 latents_std=[1.0] * 16),
        '', 'the VAE makes latents of 16 channels (z_dim), the transformer takes 48'),
    "another model's text encoder": (
        lambda root: change_json(root / 'text_encoder' / 'config.json', d_model=64),
        '', 'the text encoder makes embeddings of 64 numbers (d_model), the transformer takes 32'),
    'missing tokenizer': (
        lambda root: shutil.rmtree(root / 'tokenizer'), 'tokenizer', 'is not a folder'),
    'damaged tokenizer': (
        lambda root: (root / 'tokenizer' / 'tokenizer.json').write_text('{}'),
        'tokenizer', 'does not hold a readable tokenizer'),
    'missing policy': (
        lambda root: (root / 'policy.yaml').unlink(),
        '', 'holds no policy.yaml'),
    'wrong action width in the policy': (
        lambda root: change_policy(root, used_channels=[14, 15, 16]),
        'policy.yaml', 'quantiles.q01: 7 numbers for 3 used channels'),
    'channels that do not exist in the policy': (
        lambda root: change_policy(root, used_channels=[14, 15, 16, 17, 18, 19, 30]),
        'policy.yaml', 'used_channels.6: 30 is greater than the maximum of 29'),
    'image size that makes no patches': (
        lambda root: change_policy(root, image={'height': 48, 'width': 64}),
        '', 'image.height 48 in layout side_by_side makes 3 latents, not a multiple'),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_every_damage_is_named_with_its_place(checkpoint, run, damage):
    destroy, where, message = DAMAGES[damage]
    destroy(checkpoint)
    code, found = run('--checkpoint', checkpoint)
    assert code == 1
    assert [line for place, line in errors(found)
            if message in line and str(checkpoint / where) in f'{place}/'], errors(found)
    assert all('\n' not in line for _, line in errors(found))


def test_a_damage_is_told_once(checkpoint, run):
    missing_shard(checkpoint)
    assert len(errors(run('--checkpoint', checkpoint)[1])) == 1


def test_the_network_of_another_width_is_named(checkpoint, run):
    change_json(checkpoint / 'transformer' / 'config.json', action_dim=20)
    _, found = run('--checkpoint', checkpoint)
    lines = [line for _, line in errors(found)]
    assert 'the network has 20 action channels (action_dim); policy files lay out 30' in lines
    assert "used_channels [28] are beyond the network's 20" in lines
    assert any('action_embedder.weight has the shape' in line for line in lines)


def test_several_damages_are_all_listed(checkpoint, run, capsys):
    together = ['truncated safetensors', 'wrong JSON', 'no safetensors', 'missing tokenizer',
                'wrong action width in the policy']
    for damage in together:
        DAMAGES[damage][0](checkpoint)
    code, found = run('--checkpoint', checkpoint, '--embodiment', 'nowhere')
    printed = capsys.readouterr().out
    assert code == 1
    for damage in together:
        _, where, message = DAMAGES[damage]
        assert any(message in line for _, line in errors(found)), damage
        assert message in printed
    assert any('nowhere' in line for _, line in errors(found))


def test_a_whole_checkpoint_is_ok_and_said_to_be_untrained(checkpoint, run, capsys):
    code, found = run('--checkpoint', checkpoint, '--embodiment', 'sim_left')
    assert code == 0
    assert [each['severity'] for each in found['findings']] == ['warning']
    assert 'untrained' in found['findings'][0]['message']
    assert capsys.readouterr().out.rstrip().endswith('ok: 0 errors, 1 warnings')


def test_shards_are_checked_as_one_file_is(checkpoint, run):
    _, whole = run('--checkpoint', checkpoint)
    shard(checkpoint / 'transformer')
    code, shards = run('--checkpoint', checkpoint)
    assert code == 0 and shards == whole


def test_the_policy_of_a_public_checkpoint_is_found_by_its_name(checkpoint, run, capsys):
    (checkpoint / 'policy.yaml').unlink()
    named = checkpoint.rename(checkpoint.with_name('lingbot-va-posttrain-robotwin'))
    code, found = run('--checkpoint', named, '--embodiment', 'sim_dual')
    assert 'using the shipped policy file robotwin' in capsys.readouterr().out
    assert code == 0 and not errors(found)
    assert found['budget']['policy'] == 'robotwin'


def test_policy_and_robot_are_compared_without_a_checkpoint(run):
    code, found = run('--policy', 'untrained', '--embodiment', 'sim_right')
    assert code == 1
    lines = {each['severity']: each['message'] for each in found['findings']
             if 'sim_right' in each['where']}
    assert 'no camera left_wrist' in lines['warning']
    assert 'channels without a joint' in lines['error']
    assert 'joints without a channel' in lines['error']


def test_quantiles_beyond_the_limits_of_a_joint_are_a_warning(tmp_path, run):
    policy = yaml.safe_load(shared_file('config', 'policies', 'untrained.yaml').read_text())
    policy['quantiles']['q99'][1] = 9.0
    (tmp_path / 'policy.yaml').write_text(yaml.safe_dump(policy))
    code, found = run('--policy', tmp_path / 'policy.yaml', '--embodiment', 'sim_left')
    assert code == 0
    assert any('the quantiles of left_joint_2 reach from -0.03 to 9' in each['message']
               for each in found['findings'])


@pytest.mark.parametrize('weights', ['', 'pose_weights: [1, 1, 1, 0.01, 0.01, 0.01]'])
def test_poses_for_an_arm_of_five_joints_need_weights(tmp_path, run, weights):
    urdf = tmp_path / 'five.urdf'
    urdf.write_text('<robot name="five"><link name="l0"/>' + ''.join(
        f'<link name="l{n}"/><joint name="j{n}" type="revolute"><parent link="l{n - 1}"/>'
        f'<child link="l{n}"/><axis xyz="0 0 1"/>'
        '<limit lower="-1" upper="1" velocity="1" effort="1"/></joint>'
        for n in range(1, 6)) + '</robot>')
    names = [f'j{n}' for n in range(1, 6)]
    path = tmp_path / 'five.yaml'
    path.write_text(f"""
name: five
urdf: five.urdf
arms: [{{side: left, base_frame: l0, tool_frame: l5, joints: {names}{weights and ', '}{weights}}}]
limits: {dict.fromkeys(names, {'acceleration': 1.0, 'jerk': 10.0})}
home: {dict.fromkeys(names, 0.0)}
controllers: [{{topic: arm/joint_trajectory, kind: trajectory, joints: {names}}}]
cameras: {{head: {{topic: head}}}}
""")
    policy = yaml.safe_load(shared_file('config', 'policies', 'libero.yaml').read_text())
    policy.update(used_channels=list(range(6)), quantiles={
        key: values[:6] for key, values in policy['quantiles'].items()})
    (tmp_path / 'policy.yaml').write_text(yaml.safe_dump(policy))
    code, found = run('--policy', tmp_path / 'policy.yaml', '--embodiment', path)
    assert code == 0
    assert not weights == any(
        'has 5 joints' in each['message'] and 'pose_weights' in each['message']
        for each in found['findings'])


def test_every_shipped_policy_is_valid_by_itself(run):
    for path in shared_file('config', 'policies').glob('*.yaml'):
        assert run('--policy', path.stem)[0] == 0


def test_of_a_shipped_embodiment_at_most_the_vendors_description_is_missing(run):
    for path in shared_file('config', 'embodiments').glob('*.yaml'):
        code, found = run('--embodiment', path.stem)
        lines = [message for _where, message in errors(found)]
        assert code == (1 if lines else 0)
        assert all('not found in AMENT_PREFIX_PATH' in line for line in lines) and len(lines) <= 1
        assert not (path.stem.startswith('sim_') and lines)


@pytest.mark.parametrize('works, installed', [(True, True), (False, True), (False, False)])
def test_the_check_says_whether_cv_bridge_works(run, capsys, monkeypatch, works, installed):
    report = BridgeReport(works, 'is as it is', installed)
    monkeypatch.setattr(bridge, 'probe_bridge', lambda: report)
    code, found = run('--embodiment', 'sim_left')
    assert code == 0
    assert found['cv_bridge'] == {'works': works, 'message': 'is as it is'}
    assert 'cv_bridge is as it is' in capsys.readouterr().out
    assert [each['where'] for each in found['findings']] == (
        ['cv_bridge'] if installed and not works else [])
    assert run('--policy', 'untrained')[1]['cv_bridge'] is None


def test_a_gripper_behind_an_action_is_no_finding(run, tmp_path):
    raw = yaml.safe_load(shared_file('config', 'embodiments', 'sim_left.yaml').read_text())
    whole = raw['controllers'][0]
    gripper = whole['joints'].pop()
    raw['controllers'].append(
        {'topic': 'gripper/command', 'kind': 'gripper_action', 'joints': [gripper]})
    raw['urdf'] = str(shared_file('urdf', 'sim_left.urdf'))
    path = tmp_path / 'robot.yaml'
    path.write_text(yaml.safe_dump(raw))
    code, found = run('--embodiment', path)
    assert code == 0 and not found['findings']


@pytest.mark.parametrize('lower, upper, message', [
    ([-1, -1, -1], [1, 1, 2], None),
    ([-1, -1, -1], [1, 1, 0.01], 'home: go_home is refused: it has the left tool at z = ')])
def test_a_workspace_is_checked_against_home(run, tmp_path, lower, upper, message):
    raw = yaml.safe_load(shared_file('config', 'embodiments', 'sim_left.yaml').read_text())
    raw['urdf'] = str(shared_file('urdf', 'sim_left.urdf'))
    raw.update(base_frame='left_base_link', workspace={'lower': lower, 'upper': upper})
    path = tmp_path / 'robot.yaml'
    path.write_text(yaml.safe_dump(raw))
    code, found = run('--embodiment', path)
    assert code == 0
    assert [message in each['message'] for each in found['findings']] == [True] * bool(message)


def test_a_workspace_that_cannot_be_watched_is_an_error(run, tmp_path):
    raw = yaml.safe_load(shared_file('config', 'embodiments', 'sim_left.yaml').read_text())
    raw['urdf'] = str(shared_file('urdf', 'sim_left.urdf'))
    raw.update(base_frame='left_tool', workspace={'lower': [-1, -1, -1], 'upper': [1, 1, 1]})
    path = tmp_path / 'robot.yaml'
    path.write_text(yaml.safe_dump(raw))
    code, found = run('--embodiment', path)
    assert code == 1 and 'exactly the joints of the left arm' in errors(found)[0][1]


@pytest.mark.parametrize('words', [
    ['--checkpoint', 'nowhere'], ['--policy', 'nowhere'], ['--embodiment', 'nowhere']])
def test_what_does_not_exist_is_named(run, words):
    code, found = run(*words)
    assert code == 1 and len(errors(found)) == 1 and 'nowhere' in ': '.join(errors(found)[0])


def test_nothing_to_check_is_a_wrong_call(capsys):
    assert main(['check']) == 2
    assert 'nothing to check; expected --checkpoint' in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_a_failure(capsys):
    assert main(['check', '--policy', 'robotwin', '--json', '/proc/none/found.json']) == 1
    assert '/proc/none/found.json cannot be written' in capsys.readouterr().err


@pytest.mark.parametrize('guidance', [1.0, 5.0])
def test_the_budget_is_what_the_engine_really_takes(checkpoint, run, guidance):
    change_policy(checkpoint, video={'steps': 2, 'shift': 5.0, 'guidance': guidance})
    _, found = run('--checkpoint', checkpoint, '--dtype', 'float32')
    policy = load_policy_file(checkpoint / 'policy.yaml')
    engine = load_engine(EngineConfig.of_policy(checkpoint, policy))
    encoder = load_text_encoder(checkpoint, torch.device('cpu'), torch.float32).model
    session, vae = engine.session, engine.vae.autoencoder

    def size(*tensors):
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def weights(*modules):
        return size(*(weight for module in modules for weight in module.parameters()))

    assert found['budget']['bytes'] == {
        'transformer': weights(session.network),
        'kv_memory': size(session.kv_cache.keys, session.kv_cache.values),
        'text_states': size(*session.text.keys, *session.text.values),
        'vae_encoder': weights(vae.encoder, vae.quant_conv),
        'vae_decoder': weights(vae.decoder, vae.post_quant_conv),
        'text_encoder': weights(encoder)}


def write_hollow(path, shapes):
    """Write a safetensors file of bfloat16 whose header is whole and whose weights are a hole."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2
        for length in shape:
            size *= length
        header[name] = {'dtype': 'BF16', 'shape': list(shape), 'data_offsets': [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'wb') as file:
        file.write(struct.pack('<Q', len(text)) + text)
        file.truncate(8 + len(text) + end)


def write_public_sizes(root, tokenizer):
    """Write a checkpoint with the sizes of the public ones: 22 GB of which none is on disk."""
    config = TransformerConfig(num_layers=30, heads=24, head_dim=128, ffn_dim=14336)
    shapes = {name: place.shape for name, place in destinations(config).items()}
    write_hollow(root / 'transformer' / DIFFUSION, {**shapes, **unread_shapes(config)})
    (root / 'transformer' / 'config.json').write_text(json.dumps({
        'num_layers': 30, 'num_attention_heads': 24, 'attention_head_dim': 128,
        'ffn_dim': 14336, 'in_channels': 48, 'out_channels': 48, 'action_dim': 30,
        'text_dim': 4096, 'freq_dim': 256, 'attn_mode': 'flex'}))
    vae = {
        '_class_name': 'AutoencoderKLWan', 'base_dim': 160, 'decoder_base_dim': 256, 'z_dim': 48,
        'dim_mult': [1, 2, 4, 4], 'num_res_blocks': 2, 'attn_scales': [],
        'temperal_downsample': [False, True, True], 'is_residual': True, 'in_channels': 12,
        'out_channels': 12, 'patch_size': 2, 'scale_factor_temporal': 4,
        'scale_factor_spatial': 16, 'latents_mean': [0.0] * 48, 'latents_std': [1.0] * 48}
    with torch.device('meta'):
        network = AutoencoderKLWan.from_config(vae)
        encoder = UMT5EncoderModel(UMT5Config(
            vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64,
            is_encoder_decoder=False))
    for part, module in (('vae', network), ('text_encoder', encoder)):
        name = DIFFUSION if part == 'vae' else 'model.safetensors'
        write_hollow(root / part / name, {
            key: tuple(tensor.shape) for key, tensor in module.state_dict().items()
            if key != 'encoder.embed_tokens.weight'})
    (root / 'vae' / 'config.json').write_text(json.dumps(vae))
    encoder.config.save_pretrained(str(root / 'text_encoder'))
    shutil.copytree(tokenizer, root / 'tokenizer')


def test_public_sizes_are_counted_without_reading_them(untrained_checkpoint, tmp_path):
    root = tmp_path / 'lingbot-va-posttrain-robotwin'
    write_public_sizes(root, untrained_checkpoint / 'tokenizer')
    assert sum(path.stat().st_blocks * 512 for path in root.rglob('*')) < 100e6, 'no holes'
    found, before = tmp_path / 'found.json', resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, '-m', 'lingbot_va_ros.cli.main', 'check', '--checkpoint', str(root),
         '--json', str(found)], capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (3 * 2 ** 30,) * 2),
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'TOKENIZERS_PARALLELISM': 'false'})
    assert done.returncode == 0, done.stdout + done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Of CPU time, which does not depend on what else runs.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 45
    budget = json.loads(found.read_text())['budget']
    in_gb = {name: round(size / 1e9, 1) for name, size in budget['bytes'].items()}
    assert in_gb == {
        'transformer': 10.1, 'kv_memory': 7.8, 'text_states': 0.4, 'vae_encoder': 0.3,
        'vae_decoder': 1.1, 'text_encoder': 11.4}
    assert budget['left_on_card']['imagining'] > 5e9
    assert budget['left_on_card']['with_text_encoder_on_device'] < 0
    assert 'left on a 24 GB card' in done.stdout and 'does not fit' in done.stdout


def test_a_folder_of_lerobot_is_checked_with_its_frozen_parts(lerobot_folder, run):
    code, found = run('--checkpoint', lerobot_folder)
    assert code == 0, errors(found)
    assert found['budget']['bytes']['transformer'] > 0
    assert any('training' in each['message'] for each in found['findings'])


def test_mistakes_of_a_lerobot_folder_are_listed_with_those_of_its_frozen_parts(
        lerobot_folder, checkpoint, run):
    change_weights(lerobot_folder, lambda tensors: tensors.pop('transformer.proj_out.bias'),
                   'model.safetensors')
    shutil.rmtree(checkpoint / 'tokenizer')
    change_json(lerobot_folder / 'config.json', action_per_frame='many')
    _, found = run('--checkpoint', lerobot_folder, '--wan-pretrained-path', checkpoint)
    lines = [f'{where}: {line}' for where, line in errors(found)]
    for part in ('missing transformer.proj_out.bias', 'tokenizer: is not a folder',
                 'action_per_frame'):
        assert any(part in line for line in lines), (part, lines)


@pytest.mark.parametrize('order, severity, words', [
    ([2, 1, 3, 4, 5, 6], 'error', 'left_joint_2 (channel 14) is at left_joint_1, not at'),
    (['waist', 2, 3, 4, 5, 6], 'warning', 'left_joint_waist (at left_joint_1), left_joint_2'),
    ([1, 2, 3, 4, 5, 6], None, '')])
def test_joints_in_another_order_than_the_data_of_a_policy_are_an_error(
        lerobot_folder, run, order, severity, words):
    (lerobot_folder / 'meta').mkdir()
    (lerobot_folder / 'meta' / 'info.json').write_text(json.dumps({'features': {'action': {
        'names': [f'left_joint_{name}' for name in order] + ['left_gripper']}}}))
    code, found = run('--checkpoint', lerobot_folder, '--embodiment', 'sim_left')
    lines = [(each['severity'], each['message']) for each in found['findings']
             if 'on embodiment sim_left' in each['where']]
    assert code == (1 if severity == 'error' else 0)
    assert [each for each, _ in lines] == ([severity] if severity else [])
    assert all(words in line for _, line in lines)


def test_names_in_the_table_are_those_of_the_budget():
    from lingbot_va_ros.policy.inference.memory_budget import ON_DEMAND, RESIDENT
    assert tuple(check.PARTS) == RESIDENT + ON_DEMAND


def test_the_report_says_which_network_a_checkpoint_holds(untrained_checkpoint, tmp_path, capsys):
    write_random_checkpoint(
        tmp_path, shared_file('config', 'policies', 'untrained.yaml'), config=MIXTURE)
    for folder, line in (
            (untrained_checkpoint, 'network: one backbone for video and actions'),
            (tmp_path, 'network: mixture of transformers, action stream 48 wide')):
        assert main(['check', '--checkpoint', str(folder)]) == 0
        assert line in capsys.readouterr().out
