"""
What all tests share: a ROS domain, a log folder, the profile for images, a checkpoint.

The environment is set here, before any test imports rclpy, so that `pytest`, `make test` and
`colcon test` run alike.
"""

import gc
import json
import os
from pathlib import Path
import tempfile

from hypothesis import HealthCheck, settings
import numpy as np
import pytest
from support.ros_domain import claim_domain
from support.shared_memory import remove_abandoned_segments

from lingbot_va_ros.sim.gl import choose_gl

CHECKOUT = Path(__file__).resolve().parents[1]
TESTS = CHECKOUT / 'test'
# The files that take more than ten seconds, in about the order of their times: most of them wait
# for processes and for real time.
LONGEST_FILES = (
    'test_end_to_end.py', 'packaging/test_colcon.py', 'nodes/policy/test_node.py',
    'nodes/command_mux/test_node.py', 'cli/check/test_graph_probe.py',
    'launch/test_simulator_bridges.py', 'launch/test_launch_files.py', 'cli/eval/test_command.py',
    'cli/test_serve.py', 'training/runs/test_train_command.py', 'nodes/test_sim_robot.py',
    'training/runs/test_training_run.py', 'nodes/policy/test_under_faults.py',
    'nodes/command_mux/test_takeovers.py', 'cli/bench/test_ros_path.py',
    'cli/imagine/test_command.py', 'nodes/policy/test_clock_steps.py',
    'nodes/command_mux/test_grippers.py', 'nodes/command_mux/test_under_fire.py',
    'nodes/policy/test_instruction.py', 'policy/inference/test_session_ahead.py',
    'packaging/test_pip.py', 'cli/check/test_command.py', 'mux/test_speed_scale.py',
    'mux/test_limit_filter.py', 'policy/inference/test_engine_ahead.py',
    'launch/test_simulator_launch_files.py', 'cli/bench/test_command.py',
    'model/test_loading.py')

# The same examples at every run and no clock that judges them: a suite that fails by chance tells
# nothing. HYPOTHESIS_PROFILE=searching looks for new ones.
settings.register_profile(
    'repeatable', derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.too_slow])
settings.register_profile('searching', deadline=None, max_examples=1000)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'repeatable'))

# Before PyTorch is imported. Several test processes share the cores, and threads of small networks
# spend more time on waiting for each other than on computing.
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ['ROS_DOMAIN_ID'] = str(claim_domain())
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
# Jazzy's Fast DDS reads the first, Kilted's the second.
for variable in ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
    os.environ[variable] = str(CHECKOUT / 'config' / 'fastdds_images.xml')

# MuJoCo chooses its renderer when it is imported first, which a test may do by itself.
choose_gl()

# Removed with the process; rclpy cannot start where it finds no folder for its logs.
_logs = tempfile.TemporaryDirectory(prefix='lingbot_va_ros_test_log_')
os.environ['ROS_LOG_DIR'] = _logs.name
# Nor do tests leave prompt embeddings in the user's cache, or find them there.
_cache = tempfile.TemporaryDirectory(prefix='lingbot_va_ros_test_cache_')
os.environ['XDG_CACHE_HOME'] = _cache.name
# Nor does a mux of one run find the stop that one of another has left.
_home = tempfile.TemporaryDirectory(prefix='lingbot_va_ros_test_home_')
os.environ['HOME'] = _home.name


# What the tests import stays in memory: the garbage collector does not look through it again and
# again.
gc.disable()


def pytest_collection_finish():
    """Let the garbage collector work from here on, on what the tests make."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_sessionfinish():
    """Give back the shared memory of the processes that the tests have killed."""
    remove_abandoned_segments()


def pytest_collection_modifyitems(items):
    """
    Begin with the files that take longest.

    `make test` gives whole files to its processes, in this order: what comes last is short, so
    that no process is left alone at a long file.
    """
    order = {TESTS / name: place for place, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.fixture(scope='session')
def untrained_checkpoint(tmp_path_factory) -> Path:
    """Return a checkpoint folder with random weights, in the public layout."""
    from lingbot_va_ros.model.random_checkpoint import (
        write_random_checkpoint,  # torch: slow to import
    )

    folder = tmp_path_factory.mktemp('checkpoint')
    write_random_checkpoint(folder, CHECKOUT / 'config' / 'policies' / 'untrained.yaml')
    return folder


@pytest.fixture
def lerobot_folder(untrained_checkpoint, tmp_path) -> Path:
    """Return a folder as lerobot-train saves it, with the weights of the untrained checkpoint."""
    from safetensors.numpy import load_file, save_file
    import yaml

    source = untrained_checkpoint
    folder = tmp_path / 'pretrained_model'
    folder.mkdir()
    policy = yaml.safe_load((source / 'policy.yaml').read_text())
    network = json.loads((source / 'transformer' / 'config.json').read_text())
    del network['_class_name']
    cameras = ['observation.images.cam_high', 'observation.images.cam_left_wrist']
    width = len(policy['used_channels'])
    action = {'action': {'type': 'ACTION', 'shape': [width]}}
    config = {
        'type': 'lingbot_va', **network, 'n_obs_steps': 1, 'use_peft': False,
        'input_features': {
            key: {'type': 'VISUAL', 'shape': [3, 64, 64]} for key in cameras},
        'output_features': action, 'dtype': 'float32', 'wan_pretrained_path': str(source),
        'obs_cam_keys': cameras, 'image_hflip': False, 'camera_layout': 'width_concat',
        'height': 64, 'width': 64, 'action_per_frame': 8, 'frame_chunk_size': 2,
        'attn_window': 60, 'num_inference_steps': 4, 'video_exec_step': -1,
        'action_num_inference_steps': 8, 'guidance_scale': 1.0, 'action_guidance_scale': 1.0,
        'snr_shift': 5.0, 'action_snr_shift': 1.0, 'max_sequence_length': 512,
        'used_action_channel_ids': policy['used_channels']}
    (folder / 'config.json').write_text(json.dumps(config, indent=4))
    weights = load_file(source / 'transformer' / 'diffusion_pytorch_model.safetensors')
    save_file({f'transformer.{name}': tensor for name, tensor in weights.items()},
              folder / 'model.safetensors')
    for name, kind, mode in (('policy_preprocessor', 'normalizer_processor', 'IDENTITY'),
                             ('policy_postprocessor', 'unnormalizer_processor', 'QUANTILES')):
        (folder / f'{name}.json').write_text(json.dumps({'name': name, 'steps': [
            {'registry_name': kind,
             'config': {'eps': 1e-8, 'features': action, 'norm_map': {'ACTION': mode}},
             'state_file': f'{name}_step_0_{kind}.safetensors'},
            {'registry_name': 'device_processor',
             'config': {'device': 'cpu', 'float_dtype': None}}]}, indent=2))
        save_file({f'action.{end}': np.array(policy['quantiles'][end], np.float32)
                   for end in ('q01', 'q99')},
                  folder / f'{name}_step_0_{kind}.safetensors')
    return folder
