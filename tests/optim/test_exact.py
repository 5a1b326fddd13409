"""Fifty steps of each optimizer beside the reference code, on the same gradients: equal to one part in a million.

Tensors are of LoRA's kinds and change their gradients' size from step to step; rates change each step. Where ours
differs on purpose, the reference is given what makes it agree, and the line says so.
"""

import math

import prodigyopt
import pytest
import pytorch_optimizer
import torch
import transformers
from torch import nn

from lorakiln.optim.optimizers import optimizers
from tests.optim import problem

# fp64 shows that the algorithm is the same, fp32 that nothing else is lost in the precision that is trained in
PRECISIONS = [(torch.float64, 1e-11), (torch.float32, 1e-6)]
precisions = pytest.mark.parametrize(("dtype", "relative"), PRECISIONS, ids=["fp64", "fp32"])


def ours(name, options, dtype, zero=(), base=0.01, steps=problem.STEPS):
    tensors = problem.parameters(zero, dtype)
    optimizer = optimizers[name](problem.flat(tensors), **options)

    def step(number):
        optimizer.set_lr(dict.fromkeys(("unet", "te1"), problem.rates(number, base) if base else 1.0))
        optimizer.step()

    problem.run(tensors, step, 0, steps)
    return optimizer, tensors


def theirs(make, dtype, zero=(), base=0.01, matrices=False):
    """`matrices`, on purpose: ours factors a convolution over (out, in k k), the references its last two dimensions."""
    tensors = problem.parameters(zero, dtype)
    if matrices:
        tensors = [nn.Parameter(tensor.detach().flatten(1)) if tensor.dim() > 2 else tensor for tensor in tensors]
    optimizer = make(tensors)
    for number in range(problem.STEPS):
        for index, tensor in enumerate(tensors):
            tensor.grad = problem.gradient(number, index).to(dtype).view_as(tensor)
        if base:
            optimizer.param_groups[0]["lr"] = problem.rates(number, base)
        optimizer.step()
    return optimizer, tensors


def assert_equal(mine, reference, relative, zero=()):
    """The change of each tensor over the run agrees to `relative` of that change's own size."""
    for i, (one, other) in enumerate(zip(mine, reference, strict=True)):
        start, one, other = problem.parameters(zero)[i].detach(), one.detach(), other.detach().view_as(one)
        moved, apart = (other - start).norm(), (one - other).norm()
        # the second part: fifty roundings of the weights themselves
        assert apart <= relative * moved + 0.5 * relative * other.norm(), (i, (apart / moved).item())
        assert moved > 0  # a test of tensors that stand still would be none


PRODIGY = [
    {},
    {"use_bias_correction": True},
    {"safeguard_warmup": True, "weight_decay": 0.1},
    {"weight_decay": 0.1, "decouple": False},
    {"betas": (0.0, 0.99), "beta3": 0.9},
    {"betas": (0.8, 0.95), "eps": 1e-6, "d0": 1e-5, "d_coef": 2.0, "growth_rate": 1.1},
]


@pytest.mark.parametrize("options", PRODIGY, ids=lambda options: "-".join(options) or "defaults")
def test_prodigy_is_prodigyopt(options):
    # in fp32 x_0 - x, a small difference of large numbers, would leave nothing to compare
    optimizer, mine = ours("prodigy", options, torch.float64, zero=(1, 4), base=0.2)
    peer, reference = theirs(
        lambda tensors: prodigyopt.Prodigy(tensors, **options), torch.float64, zero=(1, 4), base=0.2
    )
    d = peer.param_groups[0]["d"]
    assert d > 1.2 * options.get("d0", 1e-6)  # it did adapt
    assert optimizer.state["d"].item() == pytest.approx(d, rel=1e-9)
    assert_equal(mine, reference, 1e-9, zero=(1, 4))


def test_prodigy_in_fp32_is_prodigyopt_where_fp32_can_tell():
    everything = tuple(range(len(problem.SHAPES)))  # from 0, x_0 - x loses nothing
    optimizer, mine = ours("prodigy", {}, torch.float32, zero=everything, base=0.2)
    peer, reference = theirs(prodigyopt.Prodigy, torch.float32, zero=everything, base=0.2)
    assert optimizer.state["d"].item() == pytest.approx(peer.param_groups[0]["d"], rel=2e-6)
    assert_equal(mine, reference, 2e-6, zero=everything)


def test_prodigy_with_every_pth_number_is_prodigyopt_on_one_long_tensor():
    # on purpose: prodigyopt takes each tensor's every p-th number, ours the whole buffer's
    tensors = problem.parameters(dtype=torch.float64)
    flat = problem.flat(tensors)
    optimizer = optimizers["prodigy"](flat, slice_p=5)
    whole = nn.Parameter(flat.values.clone())
    peer = prodigyopt.Prodigy([whole], slice_p=5)

    def step(number):
        optimizer.set_lr({"unet": 1.0, "te1": 1.0})
        optimizer.step()
        whole.grad = flat.gradients_buffer.clone()
        peer.step()

    problem.run(tensors, step)
    assert optimizer.state["s"].numel() == -(-flat.values.numel() // 5)
    assert optimizer.state["d"].item() == pytest.approx(peer.param_groups[0]["d"], rel=1e-9)
    torch.testing.assert_close(whole.detach(), flat.values, rtol=1e-9, atol=1e-12)


def test_prodigy_stands_still_at_rate_zero_and_without_gradients_as_prodigyopt_does():
    tensors, reference = problem.parameters(dtype=torch.float64), problem.parameters(dtype=torch.float64)
    optimizer = optimizers["prodigy"](problem.flat(tensors), weight_decay=0.1)
    peer = prodigyopt.Prodigy(reference, weight_decay=0.1)
    for number in range(20):
        rate = 0.0 if 10 <= number < 13 else 1.0
        for index, (one, other) in enumerate(zip(tensors, reference, strict=True)):
            drawn = problem.gradient(number, index).double() * (number > 2)
            one.grad.copy_(drawn)
            other.grad = drawn
        optimizer.set_lr({"unet": rate, "te1": rate})
        peer.param_groups[0]["lr"] = rate
        optimizer.step()
        peer.step()
        for one, other, start in zip(tensors, reference, problem.parameters(dtype=torch.float64), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
            assert number > 2 or torch.equal(one, start)
    assert optimizer.state["k"].item() == peer.param_groups[0]["k"] == 14


CAME = [{}, {"weight_decay": 0.1}, {"betas": (0.8, 0.95, 0.99), "clip_threshold": 0.5, "eps1": 1e-12, "eps2": 1e-8}]


@precisions
@pytest.mark.parametrize("options", CAME, ids=lambda options: "-".join(options) or "defaults")
def test_came_is_pytorch_optimizers(options, dtype, relative):
    _, mine = ours("came", options, dtype)
    _, reference = theirs(lambda tensors: pytorch_optimizer.CAME(tensors, **options), dtype, matrices=True)
    assert_equal(mine, reference, relative)


def test_came_keeps_the_momentum_of_vectors():
    # some implementations scale a vector's momentum by the rate in place, so that it nearly vanishes
    tensor = nn.Parameter(torch.zeros(3))
    from lorakiln.optim.flat import FlatParameters

    optimizer = optimizers["came"](FlatParameters({"all": [tensor]}))
    means = []
    for _ in range(3):
        tensor.grad.fill_(2.0)
        optimizer.set_lr({"all": 1e-4})
        optimizer.step()
        means.append(optimizer.state["all.3.mean"][0, 0].item())
    # the second moment is 0.001 of g^2, then 0.001 (1 + 0.999), ...; the update g / root is clipped to RMS 1
    assert means == pytest.approx([0.1, 0.19, 0.271], rel=1e-6)


ADAFACTOR = [
    ({}, 0.01),
    ({"weight_decay": 0.1, "clip_threshold": 0.7}, 0.01),
    ({"beta1": 0.9, "decay_rate": -0.5}, 0.01),
    ({"scale_parameter": True, "weight_decay": 0.1}, 0.01),
    ({"relative_step": True}, None),
    ({"relative_step": True, "scale_parameter": True, "beta1": 0.8}, None),
    ({"relative_step": True, "warmup_init": True, "eps1": 1e-20, "eps2": 1e-2, "scale_parameter": True}, None),
]


@precisions
@pytest.mark.parametrize(("options", "base"), ADAFACTOR, ids=["-".join(options) or "fixed" for options, _ in ADAFACTOR])
def test_adafactor_is_transformers(options, base, dtype, relative):
    # on purpose: with relative_step theirs refuses a rate, ours multiplies by it; `ours` sets 1 where base is None
    _, mine = ours("adafactor", options, dtype, zero=(1,), base=base)
    named = {"scale_parameter": False, "relative_step": False} | options
    named["eps"] = (named.pop("eps1", 1e-30), named.pop("eps2", 1e-3))
    _, reference = theirs(
        lambda tensors: transformers.Adafactor(tensors, lr=base, **named), dtype, zero=(1,), base=base, matrices=True
    )
    assert_equal(mine, reference, relative, zero=(1,))


def test_adafactor_never_discards_a_rate():
    def moved(relative, rate):
        tensors = problem.parameters()
        optimizer = optimizers["adafactor"](problem.flat(tensors), relative_step=relative)
        optimizer.set_lr({"unet": rate, "te1": rate})
        problem.run(tensors, lambda number: optimizer.step(), 0, 1)
        assert optimizer.logged_lr()["unet"] == pytest.approx(rate * (0.01 if relative else 1))
        return (tensors[0] - problem.parameters()[0]).detach().norm().item()

    assert moved(False, 1.0) == pytest.approx(2 * moved(False, 0.5), rel=1e-5)
    assert moved(True, 1.0) == pytest.approx(2 * moved(True, 0.5), rel=1e-5)


@precisions
@pytest.mark.parametrize("options", [{"weight_decay": 0.0}, {"betas": (0.8, 0.95), "weight_decay": 0.3}])
def test_lion_is_pytorch_optimizers(options, dtype, relative):
    _, mine = ours("lion", options, dtype)
    _, reference = theirs(
        lambda tensors: pytorch_optimizer.Lion(tensors, weight_decouple=True, fixed_decay=False, **options), dtype
    )
    assert_equal(mine, reference, relative)


@precisions
@pytest.mark.parametrize("options", [{}, {"betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.2}])
def test_adamw_is_torchs(options, dtype, relative):
    _, mine = ours("adamw", options, dtype)
    _, reference = theirs(lambda tensors: torch.optim.AdamW(tensors, **options), dtype)
    assert_equal(mine, reference, relative)


@pytest.mark.parametrize("name", [name for name in problem.here() if name != "prodigy"])
def test_groups_move_by_their_own_rates(name):
    tensors = problem.parameters()
    optimizer = optimizers[name](problem.flat(tensors))
    optimizer.set_lr({"unet": 0.0, "te1": 0.01})
    problem.run(tensors, lambda number: optimizer.step(), 0, 2)
    moved = [not torch.equal(one, start) for one, start in zip(tensors, problem.parameters(), strict=True)]
    assert moved == [False] * 5 + [True] * 4
    assert optimizer.logged_lr() == {"unet": 0.0, "te1": 0.01}


def test_prodigy_logs_d_times_the_rate():
    optimizer, _ = ours("prodigy", {}, torch.float32, base=0.2, steps=20)
    before = optimizer.state["d"].item()
    optimizer.set_lr({"unet": 0.5, "te1": 0.5})
    optimizer.step()
    assert {name: float(rate) for name, rate in optimizer.logged_lr().items()} == pytest.approx(
        {"unet": 0.5 * before, "te1": 0.5 * before}
    )
    assert not math.isclose(before, 1e-6)
