"""The choice of the attention kernel: flash-attn if supported, else an error or another kernel."""

import sys
import types

import pytest
import torch

from lingbot_va_ros.model import attention
from lingbot_va_ros.model.attention import choose_attention, onednn_attention, sdpa
from lingbot_va_ros.model.onednn import has_onednn

CPU, CUDA = torch.device('cpu'), torch.device('cuda')


@pytest.fixture
def flash_machine(monkeypatch):
    """Pretend to be a machine with a GPU and flash-attn; return what it was called with."""
    calls = []

    def flash_attn_func(query, key, value):
        calls.append((query.shape, key.shape, value.shape))
        return query + 1

    module = types.ModuleType('flash_attn')
    module.flash_attn_func = flash_attn_func
    module.__spec__ = types.SimpleNamespace(name='flash_attn')
    monkeypatch.setitem(sys.modules, 'flash_attn', module)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (8, 0))
    return calls


def heads(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def test_sdpa_is_softmax_attention():
    query, key, value = heads(2, 3, 4, 8), heads(2, 5, 4, 8), heads(2, 5, 4, 8).flip(1)
    weights = (torch.einsum('bqhd,bkhd->bhqk', query, key) / 8 ** 0.5).softmax(-1)
    expected = torch.einsum('bhqk,bkhd->bqhd', weights, value).flatten(2)
    torch.testing.assert_close(sdpa(query, key, value), expected)


@pytest.mark.parametrize('name', ['auto', 'flash'])
def test_flash_runs_where_it_is_installed_and_can(flash_machine, name):
    attend, line = choose_attention(name, CUDA, torch.bfloat16, 128)
    assert line == 'attention: flash-attn'
    query, key = heads(2, 3, 4, 128).bfloat16(), heads(2, 7, 4, 128).bfloat16()
    assert torch.equal(attend(query, key, key), (query + 1).flatten(2))
    assert flash_machine == [((2, 3, 4, 128), (2, 7, 4, 128), (2, 7, 4, 128))]


def test_sdpa_is_taken_where_it_is_asked_for(flash_machine):
    assert choose_attention('sdpa', CUDA, torch.bfloat16, 128)[0] is sdpa


@pytest.mark.parametrize('device, dtype, head_dim, capability, why', [
    (CPU, torch.bfloat16, 128, (9, 0), 'needs a CUDA device, not cpu'),
    (CUDA, torch.float32, 128, (9, 0), 'float16 and bfloat16, not float32'),
    (CUDA, torch.bfloat16, 264, (9, 0), 'heads of up to 256 in steps of 8, not 264'),
    (CUDA, torch.bfloat16, 36, (9, 0), 'heads of up to 256 in steps of 8, not 36'),
    (CUDA, torch.float16, 128, (7, 5), 'needs compute capability 8.0, the device has 7.5'),
])
def test_where_flash_cannot_run_auto_says_why_and_flash_is_refused(
        flash_machine, monkeypatch, device, dtype, head_dim, capability, why):
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: capability)
    attend, line = choose_attention('auto', device, dtype, head_dim)
    assert attend is sdpa and why in line
    with pytest.raises(ValueError, match='attention is flash, but') as refused:
        choose_attention('flash', device, dtype, head_dim)
    assert why in str(refused.value)


needs_onednn = pytest.mark.skipif(not has_onednn(), reason='needs oneDNN')


@needs_onednn
@pytest.mark.parametrize('queries, keys', [(240, 700), (33, 1000), (3, 4)])
def test_onednn_attention_agrees_with_pytorch(queries, keys):
    query, key = heads(2, queries, 3, 64), heads(2, 3, keys, 64).transpose(1, 2)
    for values in (key.flip(1), key.flip(1).contiguous()):  # by head, and by token
        torch.testing.assert_close(
            onednn_attention(query, key, values), sdpa(query, key, values), rtol=0, atol=1e-5)


def test_onednn_attention_leaves_gradients_to_pytorch():
    query, key = heads(1, 240, 1, 64).requires_grad_(), heads(1, 700, 1, 64)
    onednn_attention(query, key, key).sum().backward()
    assert query.grad.abs().max() > 0


@needs_onednn
def test_auto_takes_onednn_for_float32_on_a_cpu_only():
    assert choose_attention('auto', CPU, torch.float32, 128)[0] is onednn_attention
    assert choose_attention('sdpa', CPU, torch.float32, 128)[0] is sdpa
    assert choose_attention('auto', CPU, torch.bfloat16, 128)[0] is sdpa


def test_auto_reports_that_flash_attn_is_not_installed(flash_machine, monkeypatch):
    monkeypatch.delitem(sys.modules, 'flash_attn')
    monkeypatch.setattr(attention.importlib.util, 'find_spec', lambda name: None)
    attend, line = choose_attention('auto', CUDA, torch.bfloat16, 128)
    assert attend is sdpa and 'flash-attn is not installed' in line


def test_auto_survives_a_flash_attn_that_cannot_be_imported(flash_machine):
    del sys.modules['flash_attn'].flash_attn_func  # the import then fails as a broken build does
    attend, line = choose_attention('auto', CUDA, torch.bfloat16, 128)
    assert attend is sdpa and 'cannot be imported' in line


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="attention is 'fast'; expected one of auto, flash, sdpa"):
        choose_attention('fast', CPU, torch.float32, 128)
