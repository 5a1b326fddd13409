"""One optimizer step: what an overflow in fp16 does to it, and that the loss scale is part of the state."""

import math

import pytest
import torch
from torch import nn

from lorakiln.optim.flat import FlatParameters
from lorakiln.optim.optimizers import optimizers
from lorakiln.train.learner import Learner
from lorakiln.train.scale import LossScale


class Weights:
    """As much of a network as a learner asks for."""

    def __init__(self):
        self.weight = nn.Parameter(torch.ones(3))

    def state_dict(self):
        return {"weight": self.weight.detach()}

    def load_state_dict(self, tensors):
        self.weight.data.copy_(tensors["weight"])


def learner(scale: LossScale | None) -> Learner:
    network = Weights()
    flat = FlatParameters({"unet": [network.weight]})
    return Learner(network, flat, optimizers["adamw"](flat), lambda step: {"unet": 0.1}, scale=scale)


def step(one: Learner, slope: float, number: int = 1):
    one.backward(slope * one.network.weight.sum())
    return one.update(number)


def test_a_scaled_step_is_the_step_without_scale():
    plain, scaled = learner(None), learner(LossScale(factor=2.0**10))
    assert float(step(plain, 0.5).norm) == float(step(scaled, 0.5).norm) == pytest.approx(math.sqrt(0.75))
    assert torch.equal(plain.network.weight, scaled.network.weight)


def test_a_step_that_overflows_is_left_out_and_halves_the_scale():
    one = learner(LossScale(factor=4.0))
    assert step(one, math.inf).skipped and one.scale == LossScale(factor=2.0)
    assert torch.equal(one.network.weight, torch.ones(3)) and one.finite()
    assert not step(one, 1.0).skipped and one.scale == LossScale(factor=2.0, clean=1)


@pytest.mark.parametrize("scale", [None, LossScale(factor=1.0)], ids=["no scale", "at 1"])
def test_an_overflow_that_no_scale_can_mend_is_not_called_skipped(scale):
    update = step(learner(scale), math.nan)
    assert not update.skipped and not math.isfinite(update.norm)


def test_the_scale_grows_after_patience_and_never_falls_below_one():
    scale = LossScale(factor=1.0, patience=2)
    for finite, factor in [(False, 1.0), (True, 1.0), (True, 2.0), (True, 2.0), (False, 1.0)]:
        scale.update(finite)
        assert scale.factor == factor


def test_the_scale_is_part_of_the_state():
    one, other = learner(LossScale(factor=8.0)), learner(LossScale())
    step(one, 1.0), step(one, math.inf)
    other.load_state(*one.state())
    assert other.scale == LossScale(factor=4.0) and torch.equal(other.network.weight, one.network.weight)
    step(one, 0.3), step(other, 0.3)
    assert torch.equal(other.network.weight, one.network.weight) and other.scale == one.scale
