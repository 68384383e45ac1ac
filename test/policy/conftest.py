"""
The untrained checkpoint's policy and engines.

One thread for torch: small tensors gain nothing from more, and other tests need the cores.
"""

from dataclasses import replace

import pytest
import torch

from lingbot_va_ros.policy.inference.engine import Engine
from lingbot_va_ros.policy.inference.load import EngineConfig, load_engine
from lingbot_va_ros.specs.policy_file import load_policy_file

torch.set_num_threads(1)


@pytest.fixture(scope='session')
def untrained_policy(untrained_checkpoint):
    return load_policy_file(untrained_checkpoint / 'policy.yaml')


@pytest.fixture(scope='session')
def make_short_engine(untrained_checkpoint, untrained_policy):
    """Return a function that makes engines of few denoising steps; all share their weights."""
    policy = untrained_policy
    loaded = load_engine(EngineConfig.of_policy(
        untrained_checkpoint, policy, memory_chunks=1, warm_up=False))

    def make(guidance=1.0, memory_chunks=3, policy=policy, network=None) -> Engine:
        """Make one without an instruction, by default for 3 chunks."""
        return Engine(
            network or loaded.session.network, loaded.vae, loaded.text_encoder, policy,
            replace(policy.video, steps=2, guidance=guidance), replace(policy.action, steps=2),
            memory_chunks, 0)
    return make
