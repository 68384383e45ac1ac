"""An engine from a LeRobot folder predicts the same as from the public layout."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lingbot_va_ros.policy.inference.load import EngineConfig, load_engine
from lingbot_va_ros.specs.errors import CheckpointError
from lingbot_va_ros.specs.policy_file import find_policy_file, load_policy_file


def engine_of(folder, **options):
    policy = load_policy_file(find_policy_file('', folder))
    engine = load_engine(EngineConfig.of_policy(folder, policy, **options))
    engine.set_instruction('pick up the cup')
    return engine


def two_chunks(engine, images):
    """Return the actions of chunk 0 and, once those were executed, of chunk 1."""
    engine.begin_episode(images)
    first = engine.predict().actions
    for _ in range(len(first) // engine.shape.actions):
        engine.observe({name: [image] * 4 for name, image in images.items()})
    engine.commit(first)
    return np.concatenate((first, engine.predict().actions))


def change_config(folder, **fields):
    path = folder / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            for name in ('head', 'left_wrist')}


def test_actions_are_those_of_the_public_layout(lerobot_folder, untrained_checkpoint, images):
    np.testing.assert_array_equal(
        two_chunks(engine_of(lerobot_folder), images),
        two_chunks(engine_of(untrained_checkpoint), images))


def test_the_first_action_frame_of_an_episode_is_not_executed(lerobot_folder, images):
    engine = engine_of(lerobot_folder)
    engine.begin_episode(images)
    assert len(engine.predict().actions) == 8  # of 2 frames with 8 actions each


def test_mirror_images_equals_mirroring_the_input(
    lerobot_folder, untrained_checkpoint, images,
):
    change_config(lerobot_folder, image_hflip=True)
    mirrored = {name: np.ascontiguousarray(image[:, ::-1]) for name, image in images.items()}
    public = engine_of(untrained_checkpoint)
    ours = two_chunks(engine_of(lerobot_folder), images)
    np.testing.assert_array_equal(ours, two_chunks(public, mirrored))
    public.reset()
    assert not np.array_equal(ours, two_chunks(public, images))


def test_an_adapter_agrees_with_its_merged_weights(
    lerobot_folder, untrained_checkpoint, images, tmp_path,
):
    weights = load_file(lerobot_folder / 'model.safetensors')
    module = 'transformer.blocks.2.ffn.net.2'
    rows, columns = weights[f'{module}.weight'].shape
    rng = np.random.default_rng(1)
    a = rng.standard_normal((4, columns), dtype=np.float32)
    b = rng.standard_normal((rows, 4), dtype=np.float32)
    merged = dict(weights)
    merged[f'{module}.weight'] = weights[f'{module}.weight'] + 0.5 * (b @ a)
    save_file(merged, lerobot_folder / 'model.safetensors')
    expected = two_chunks(engine_of(lerobot_folder), images)

    (lerobot_folder / 'model.safetensors').unlink()
    save_file({f'base_model.model.{module}.lora_A.weight': a,
               f'base_model.model.{module}.lora_B.weight': b},
              lerobot_folder / 'adapter_model.safetensors')
    (lerobot_folder / 'adapter_config.json').write_text(json.dumps({
        'peft_type': 'LORA', 'r': 4, 'lora_alpha': 2, 'base_model_name_or_path': 'gone'}))
    change_config(lerobot_folder, use_peft=True)
    engine = engine_of(lerobot_folder, adapter_base=str(untrained_checkpoint))
    np.testing.assert_allclose(two_chunks(engine, images), expected, atol=1e-5)


def test_frozen_parts_can_be_given(lerobot_folder, untrained_checkpoint, images):
    change_config(lerobot_folder, wan_pretrained_path='robbyant/lingbot-va-of-nobody')
    with pytest.raises(CheckpointError, match='set the parameter wan_pretrained_path'):
        engine_of(lerobot_folder)
    engine_of(lerobot_folder, wan_pretrained_path=str(untrained_checkpoint))
