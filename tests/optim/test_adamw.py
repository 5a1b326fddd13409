"""AdamW on flat buffers is torch's AdamW on single tensors, and any torch optimizer works by its path."""

import pytest
import torch

from lorakiln.base.errors import UserError
from lorakiln.optim.optimizers import optimizers
from tests.optim import problem


def trained(make, steps=problem.STEPS):
    tensors = problem.parameters()
    theirs = make([{"params": tensors[:5], "lr": 0.0}, {"params": tensors[5:], "lr": 0.0}])

    def step(number):
        theirs.param_groups[0]["lr"], theirs.param_groups[1]["lr"] = problem.rates(number), problem.rates(number, 0.003)
        theirs.step()

    problem.run(tensors, step, 0, steps)
    return tensors


def trained_here(name, steps=problem.STEPS, **options):
    tensors = problem.parameters()
    ours = optimizers[name](problem.flat(tensors), **options)

    def step(number):
        ours.set_lr({"unet": problem.rates(number), "te1": problem.rates(number, 0.003)})
        ours.step()

    problem.run(tensors, step, 0, steps)
    return tensors


@pytest.mark.parametrize("options", [{}, {"betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.2}])
def test_adamw_is_torchs(options):
    ours = trained_here("adamw", **{**options, "betas": list(options.get("betas", (0.9, 0.999)))})
    theirs = trained(lambda groups: torch.optim.AdamW(groups, **options))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("path", ["torch.optim.NAdam", "torch.optim.Adafactor", "torch.optim.SGD"])
def test_any_torch_optimizer_works_by_its_path(path):
    kind = getattr(torch.optim, path.rpartition(".")[2])
    ours, theirs = trained_here(path, weight_decay=0.1), trained(lambda groups: kind(groups, weight_decay=0.1))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("adamw", {"d_coef": 2}, "'adamw' has no option 'd_coef'; it has betas, eps, weight_decay"),
        ("adamw", {"lr": 1e-3}, "no option 'lr'"),
        ("adamw", {"betas": (0.9,)}, "betas: must be 2 numbers"),
        ("adamw", {"betas": (0.9, 1.0)}, "betas = 1.0: must be at least 0 and below 1"),
        ("adamw", {"weight_decay": -1}, "must be at least 0"),
        ("adamm", {}, "unknown optimizer 'adamm'; did you mean 'adamw'"),
        ("torch.optim.NAdam", {"momentun": 0.9}, "has no option 'momentun'; it has betas, eps"),
        ("torch.optim.NAdam", {"weight_decay": -1}, "Invalid weight_decay"),
        ("torch.optim.LBFGS", {}, "needs a closure"),
        ("torch.optim.Nadam", {}, "there is no such class"),
        ("torch.nn.Linear", {}, "is not a torch optimizer"),
        ("no_such_package.Thing", {}, "there is no such class"),
    ],
)
def test_bad_names_and_options_are_refused(name, options, match):
    with pytest.raises(UserError, match=match):
        optimizers[name](problem.flat(problem.parameters()), **options)
