"""Every optimizer, stopped and restored in another process's memory, goes on to the same bits."""

import json

import pytest
import torch
from safetensors.torch import load, save

from lorakiln.base.errors import UserError
from lorakiln.optim.flat import FlatParameters
from lorakiln.optim.optimizers import optimizers
from lorakiln.optim.rounding import Rounded
from tests.optim import problem

# torch's by path keeps its state for each parameter; the other two keep some of it for each group
NAMES = [*problem.here(), "torch.optim.NAdam", "prodigyopt.Prodigy", "pytorch_optimizer.Ranger21", "rounded came"]
OPTIONS = {
    "prodigyopt.Prodigy": {"use_bias_correction": True, "d0": 1e-3},
    "pytorch_optimizer.Ranger21": {"num_iterations": 20},
    "prodigy": {"use_bias_correction": True, "weight_decay": 0.01, "d0": 1e-3},
    "adafactor": {"relative_step": True, "beta1": 0.9},
}


def built(name, flat):
    """An optimizer by its name; "rounded" before it is `Rounded` around it."""
    rounded, _, plain = name.rpartition(" ")
    optimizer = optimizers[plain](flat, **OPTIONS.get(plain, {}))
    return Rounded(optimizer, flat, seed=3) if rounded else optimizer


def fresh(name, tensors):
    optimizer = built(name, problem.flat(tensors))

    def step(number):
        optimizer.set_lr({"unet": problem.rates(number), "te1": problem.rates(number)})
        optimizer.step()

    return optimizer, step


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("at", [0, 7])
def test_a_restored_optimizer_continues_to_the_bit(name, at):
    whole = problem.parameters()
    problem.run(whole, fresh(name, whole)[1], 0, 20)

    first = problem.parameters()
    optimizer, step = fresh(name, first)
    problem.run(first, step, 0, at)
    tensors = load(save({key: tensor.contiguous() for key, tensor in optimizer.state_tensors().items()}))
    scalars = json.loads(json.dumps(optimizer.state_scalars()))

    second = problem.parameters()
    again, step = fresh(name, second)
    for tensor, saved in zip(second, first, strict=True):
        tensor.data.copy_(saved.data)
    again.load_state(tensors, scalars)
    problem.run(second, step, at, 20)
    assert all(torch.equal(one, other) for one, other in zip(whole, second, strict=True))
    assert not torch.equal(whole[0], problem.parameters()[0])


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_alone_are_not_enough_to_continue(name):
    whole, second = problem.parameters(), problem.parameters()
    problem.run(whole, fresh(name, whole)[1], 0, 20)
    first = problem.parameters()
    problem.run(first, fresh(name, first)[1], 0, 7)
    _, step = fresh(name, second)
    for tensor, saved in zip(second, first, strict=True):
        tensor.data.copy_(saved.data)
    problem.run(second, step, 7, 20)
    assert not all(torch.equal(one, other) for one, other in zip(whole, second, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_state_of_another_network_is_refused(name):
    tensors = problem.parameters()
    optimizer, step = fresh(name, tensors)
    problem.run(tensors, step, 0, 1)
    elsewhere = FlatParameters({"unet": [torch.nn.Parameter(torch.zeros(3, 200))]})
    other = built(name, elsewhere)
    with pytest.raises(UserError, match="belongs to another network"):
        other.load_state(optimizer.state_tensors(), optimizer.state_scalars())


def test_prodigy_refuses_several_learning_rates():
    optimizer = optimizers["prodigy"](problem.flat(problem.parameters()))
    with pytest.raises(UserError, match=r"one learning rate, not unet 1, te1 0\.5"):
        optimizer.set_lr({"unet": 1.0, "te1": 0.5})


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("prodigy", {"fsdp_in_use": True}, "'prodigy' has no option 'fsdp_in_use'; it has betas, beta3, eps"),
        ("prodigy", {"decouple": "false"}, "'prodigy': decouple = 'false': must be true or false"),
        ("prodigy", {"beta3": "0.9"}, "beta3 = '0.9': must be a number"),
        ("prodigy", {"slice_p": True}, "slice_p = True: must be a number"),
        ("adamw", {"betas": 0.9}, "betas = 0.9: must be a list of numbers"),
        ("adamw", {"betas": ["x", 0.9]}, r"betas = \['x', 0.9\]: must be a list of numbers"),
        ("lion", {"betas": ["0.9", "0.99"]}, r"betas = \['0.9', '0.99'\]: must be a list of numbers"),
        ("came", {"betas": [True, 0.9, 0.9]}, "must be a list of numbers"),
        ("prodigy", {"d0": 0}, "d0 = 0: must be above 0"),
        ("prodigy", {"growth_rate": 0.5}, "growth_rate = 0.5"),
        ("prodigy", {"slice_p": 2.5}, "slice_p = 2.5"),
        ("prodigy", {"beta3": 1.0}, "beta3 = 1.0"),
        ("came", {"betas": (0.9, 0.999)}, "betas: must be 3 numbers"),
        ("came", {"ams_bound": True}, "no option 'ams_bound'; it has betas, eps1, eps2, clip_threshold, weight_decay"),
        ("came", {"eps2": 0}, "eps2 = 0: must be above 0"),
        ("adafactor", {"warmup_init": True}, "has no effect without relative_step"),
        ("adafactor", {"decay_rate": 0.8}, "decay_rate = 0.8: must be below 0"),
        ("adafactor", {"clip_threshold": 0}, "clip_threshold = 0"),
        ("lion", {"weight_decay": -1}, "weight_decay = -1: must be at least 0"),
        ("lion", {"eps": 1e-8}, "no option 'eps'; it has betas, weight_decay"),
    ],
)
def test_options_that_cannot_be_used_are_refused(name, options, match):
    with pytest.raises(UserError, match=match):
        optimizers[name](problem.flat(problem.parameters()), **options)
