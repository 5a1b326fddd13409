"""The options of optimizers and schedules are known without building one, and are those that their builders take."""

import inspect

import pytest

from lorakiln.base.errors import UserError
from lorakiln.base.recipe import parse
from lorakiln.base.settings.options import OPTIMIZER_OPTIONS, SCHEDULE_OPTIONS

TABLE = {"base": "x", "dataset": [{"folder": "p"}]}


def kind(default):
    """What a builder wants where it has this default."""
    if isinstance(default, bool):
        return "flag"
    return len(default) if isinstance(default, tuple) else "number"


def options(builder):
    parameters = inspect.signature(builder).parameters.values()
    return {one.name: kind(one.default) for one in parameters if one.kind is one.KEYWORD_ONLY}


def test_the_tables_are_what_the_builders_take():
    import lorakiln.optim.table  # noqa: F401  fills the registry
    from lorakiln.optim.optimizers import optimizers
    from lorakiln.optim.schedules import shapes

    assert {name: options(optimizers._builders[name]) for name in optimizers} == OPTIMIZER_OPTIONS
    assert {name: options(shapes[name]) for name in shapes} == SCHEDULE_OPTIONS


@pytest.mark.parametrize(
    ("optim", "line"),
    [
        ({"options": {"wd": 1}}, "optimizer 'adamw' has no option 'wd'; it has betas, eps, weight_decay"),
        ({"options": {"eps": "small"}}, "optimizer 'adamw': eps = 'small': must be a number"),
        ({"options": {"betas": [0.9]}}, "betas = [0.9]: must be a list of numbers, 2 of them"),
        ({"name": "came", "options": {"betas": [0.9, 0.99]}}, "must be a list of numbers, 3 of them"),
        ({"name": "prodigy", "options": {"decouple": 1}}, "decouple = 1: must be true or false"),
        ({"schedule_options": {"cycles": 2}}, "schedule 'cosine' has no option 'cycles'; it has min_ratio"),
        ({"schedule": "wsd", "schedule_options": {"decay": True}}, "decay = True: must be a number"),
        ({"name": "adam", "options": {"wd": 1}}, "optim.name = 'adam': unknown optimizer"),
    ],
)
def test_an_option_that_a_part_does_not_have_is_refused_by_the_recipe(optim, line):
    with pytest.raises(UserError) as error:
        parse(TABLE | {"optim": optim}, "my.toml")
    assert line in str(error.value) and "\n" not in str(error.value)


def test_fitting_options_and_those_of_other_tools_optimizers_are_taken():
    for optim in (
        {"name": "prodigy", "options": {"d_coef": 2, "betas": [0.9, 0.99], "safeguard_warmup": True}},
        {"name": "torch.optim.NAdam", "options": {"momentum_decay": 0.004}},
        {"schedule": "cosine_restarts", "schedule_options": {"cycles": 3}},
    ):
        assert parse(TABLE | {"optim": optim}, "my.toml").optim.name
