"""AdamW8bit really keeps 8 bits, goes nearly where AdamW goes, and resumes to the bit."""

import importlib.util
import sys

import pytest
import torch
from torch import nn

from lorakiln.base.errors import UserError
from lorakiln.optim.flat import FlatParameters
from lorakiln.optim.optimizers import optimizers

needs_bitsandbytes = pytest.mark.skipif(not importlib.util.find_spec("bitsandbytes"), reason="an optional extra")


def network():
    rng = torch.Generator().manual_seed(3)
    return FlatParameters({"unet": [nn.Parameter(0.1 * torch.randn(16, 320, generator=rng)) for _ in range(2)]})


def run(name, flat, first, last, state=None):
    optimizer = optimizers[name](flat, weight_decay=0.1)
    if state:
        optimizer.load_state(*state)
    for number in range(first, last):
        rng = torch.Generator().manual_seed(number)
        flat.gradients_buffer.copy_(0.3 + torch.randn(flat.values.shape, generator=rng))
        optimizer.set_lr({"unet": 1e-3})
        optimizer.step()
    return optimizer


@needs_bitsandbytes
def test_the_state_is_8_bits_a_number():
    flat = network()
    state = run("adamw8bit", flat, 0, 1).state_tensors()
    moments = [tensor for tensor in state.values() if tensor.numel() == flat.values.numel()]
    assert [tensor.dtype for tensor in moments] == [torch.uint8] * 2


@needs_bitsandbytes
def test_it_goes_nearly_where_adamw_goes():
    start, exact, coarse = network(), network(), network()
    run("adamw", exact, 0, 30)
    run("adamw8bit", coarse, 0, 30)
    apart, moved = (coarse.values - exact.values).norm(), (exact.values - start.values).norm()
    assert 0 < apart < 0.03 * moved


@needs_bitsandbytes
def test_it_resumes_to_the_bit():
    whole, first, second = network(), network(), network()
    run("adamw8bit", whole, 0, 20)
    stopped = run("adamw8bit", first, 0, 8)
    second.values.copy_(first.values)
    state = {name: tensor.clone() for name, tensor in stopped.state_tensors().items()}, stopped.state_scalars()
    run("adamw8bit", second, 8, 20, state)
    assert torch.equal(whole.values, second.values)


def test_without_bitsandbytes_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(UserError, match="pip install bitsandbytes"):
        optimizers["adamw8bit"](network())
