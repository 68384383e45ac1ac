"""
The untrained checkpoint's policy and engine.

One thread for torch: small tensors gain nothing from more, and other tests need the cores.
"""

import pytest
import torch

from lingbot_va_ros.policy.policy_file import load_policy_file

torch.set_num_threads(1)


@pytest.fixture(scope='session')
def untrained_policy(untrained_checkpoint):
    return load_policy_file(untrained_checkpoint / 'policy.yaml')
