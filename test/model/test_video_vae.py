"""The video VAE as a stream of images."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from lingbot_va_ros.model.video_vae import load_video_vae, VaeStream, VideoVae
from lingbot_va_ros.specs.errors import CheckpointError

CPU = torch.device('cpu')
CAMERAS = ['head', 'wrist']


@pytest.fixture(scope='module')
def vae(untrained_checkpoint):
    return load_video_vae(untrained_checkpoint / 'vae', CPU, torch.float32)


def make_stream(vae, cameras=CAMERAS, layout='side_by_side'):
    return VaeStream(vae, layout, cameras, 32, 32)


def pictures(count, seed=0, cameras=CAMERAS, size=(32, 32)):
    random = np.random.default_rng(seed)
    return {name: [random.integers(0, 256, (*size, 3), np.uint8) for _ in range(count)]
            for name in cameras}


def part(images, first, last):
    return {name: pictures[first:last] for name, pictures in images.items()}


@torch.inference_mode()
def encode(stream, images, *borders):
    """Encode images in the parts between `borders` and return all latents."""
    return torch.cat([stream.encode(part(images, first, last))
                      for first, last in zip((0, *borders[:-1]), borders)], 2)


def test_images_that_come_four_by_four_give_the_latents_of_all_at_once(vae):
    images = pictures(13)
    torch.testing.assert_close(
        encode(make_stream(vae), images, 1, 5, 9, 13),
        encode(make_stream(vae), images, 1, 13), rtol=0, atol=1e-5)


def test_the_first_image_is_a_latent_frame_and_each_four_later_ones_are_another(vae):
    latents = encode(make_stream(vae), pictures(9), 1, 9)
    assert latents.shape == (1, 48, 3, 2, 4) and latents.dtype == torch.float32


def test_latents_depend_on_the_images_before(vae):
    images = pictures(5)
    other = {name: [255 - frames[0], *frames[1:]] for name, frames in images.items()}
    one, two = (encode(make_stream(vae), each, 1, 5)[:, :, 1] for each in (images, other))
    assert (one - two).abs().max() > 1e-3


def test_two_streams_of_one_vae_do_not_disturb_each_other(vae):
    images, others = pictures(5), pictures(5, seed=1)
    alone = encode(make_stream(vae), images, 1, 5)
    stream, other = make_stream(vae), make_stream(vae)
    first = encode(stream, images, 1)
    encode(other, others, 1, 5)
    with torch.inference_mode():
        second = stream.encode(part(images, 1, 5))
    assert torch.equal(torch.cat((first, second), 2), alone)


def test_a_cleared_stream_begins_anew(vae):
    images, stream = pictures(5), make_stream(vae)
    before = encode(stream, images, 1, 5)
    stream.clear()
    assert torch.equal(encode(stream, images, 1, 5), before)


def test_images_of_any_size_are_resized(vae):
    images = pictures(1, size=(48, 20))
    assert encode(make_stream(vae), images, 1).shape == (1, 48, 1, 2, 4)


def test_each_camera_has_its_own_place_in_the_latents(vae):
    images = pictures(1)
    swapped = {'head': images['wrist'], 'wrist': images['head']}
    latents = encode(make_stream(vae), images, 1)
    torch.testing.assert_close(
        encode(make_stream(vae), swapped, 1), latents.roll(2, -1), rtol=0, atol=1e-5)


def test_tshape_streams_have_the_head_below_two_smaller_wrists(vae):
    cameras = ['head', 'left', 'right']
    latents = encode(make_stream(vae, cameras, 'tshape'), pictures(5, cameras=cameras), 1, 5)
    assert latents.shape == (1, 48, 2, 3, 2)


@pytest.mark.parametrize('started, counts, expected', [
    (False, {'head': 4, 'wrist': 4}, 'expected one of each'),
    (False, {'head': 1}, "'wrist': 0"),
    (False, {}, "'head': 0"),
    (True, {'head': 3, 'wrist': 3}, 'expected a multiple of 4 of each'),
    (True, {'head': 4, 'wrist': 8}, "'head': 4, 'wrist': 8"),
    (True, {'head': 0, 'wrist': 0}, 'expected a multiple of 4 of each')])
def test_a_number_of_images_that_makes_no_whole_frame_is_refused_and_changes_nothing(
        vae, started, counts, expected):
    images, stream = pictures(9), make_stream(vae)
    done = (1,) if started else ()
    if started:
        encode(stream, images, 1)
    with pytest.raises(ValueError, match='images per camera') as refused:
        stream.encode({name: images[name][:count] for name, count in counts.items()})
    assert expected in str(refused.value)
    with torch.inference_mode():
        after = stream.encode(part(images, *((1, 5) if started else (0, 1))))
    assert torch.equal(after, encode(make_stream(vae), images, *done, 5 if started else 1)
                       [:, :, len(done):])


@pytest.mark.parametrize('image', [
    np.zeros((32, 32), np.uint8), np.zeros((32, 32, 4), np.uint8), np.zeros((32, 32, 3))])
def test_an_image_that_is_no_rgb_uint8_is_refused_by_camera(vae, image):
    with pytest.raises(ValueError, match=r'camera wrist: image of .*; expected uint8 \[height'):
        make_stream(vae).encode({'head': pictures(1)['head'], 'wrist': [image]})


def test_decoding_gives_one_picture_and_four_for_each_later_frame(vae):
    with torch.inference_mode():
        video = vae.decode(torch.randn(1, 48, 3, 2, 4))
    assert video.shape == (9, 32, 64, 3) and video.dtype == torch.float32
    assert 0 <= video.min() and video.max() <= 1


def test_the_vae_runs_in_bfloat16(untrained_checkpoint, vae):
    small = load_video_vae(untrained_checkpoint / 'vae', CPU, torch.bfloat16)
    images = pictures(5)
    latents = encode(make_stream(small), images, 1, 5)
    exact = encode(make_stream(vae), images, 1, 5)
    assert latents.dtype == torch.float32
    assert (latents - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_images_go_to_the_device_of_the_vae(vae):
    # The meta device computes shapes only, and refuses tensors of other devices as a GPU does.
    with torch.device('meta'):
        elsewhere = VideoVae(type(vae.autoencoder).from_config(vae.autoencoder.config).bfloat16())
    latents = encode(make_stream(elsewhere), pictures(5, size=(48, 20)), 1, 5)
    assert latents.device.type == 'meta' and latents.dtype == torch.float32


@pytest.fixture
def folder(untrained_checkpoint, tmp_path):
    return shutil.copytree(untrained_checkpoint / 'vae', tmp_path / 'vae')


def change_config(folder, **changes):
    path = folder / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize('damage, part', [
    (lambda folder: (folder / 'config.json').unlink(), 'config.json does not exist'),
    (lambda folder: (folder / 'config.json').write_text('nope'), 'config.json is not JSON'),
    (lambda folder: (folder / 'config.json').write_text('"vae"'), 'does not hold a JSON object'),
    (lambda folder: change_config(folder, dim_mult='a'), 'is not a config of AutoencoderKLWan'),
    (lambda folder: change_config(folder, latents_mean=[0.0] * 3),
     'latents_mean holds 3 numbers, expected z_dim (48)'),
    (lambda folder: change_config(folder, latents_std=None), 'latents_std holds no list'),
    (lambda folder: change_config(folder, base_dim=8),
     'encoder.conv_in.weight has the shape [4, 12, 3, 3, 3], expected [8, 12, 3, 3, 3]'),
    (lambda folder: (folder / 'diffusion_pytorch_model.safetensors').write_text('x'),
     'diffusion_pytorch_model.safetensors cannot be read')])
def test_a_damaged_folder_is_refused_by_name(folder, damage, part):
    damage(folder)
    with pytest.raises(CheckpointError) as refused:
        load_video_vae(folder, CPU, torch.float32)
    assert str(folder) in str(refused.value) and part in str(refused.value)


def test_importing_the_vae_prints_nothing():
    done = subprocess.run(
        [sys.executable, '-c', 'import lingbot_va_ros.model.video_vae'],
        capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ''
