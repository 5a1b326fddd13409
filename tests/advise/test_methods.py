"""Named recipes: each is a valid recipe, can be changed, and says what its row of the guides says."""

import pytest

from lorakiln.advise.methods import METHODS, named
from lorakiln.base.errors import UserError

PLACES = ["base=starter", "dataset.0.folder=pics"]
# name -> what the row says
ROWS = {
    "prodigy-fast": {"optim.name": "prodigy", "optim.lr": 1.0, "optim.text_lr": 1.0, "adapter.rank": 16,
                     "adapter.alpha": 2.0, "train.batch": 3, "train.epochs": 50, "optim.schedule": "cosine"},
    "prodigy-rich": {"adapter.rank": 32, "adapter.alpha": 32.0, "train.epochs": 12},
    "prodigy-long": {"optim.name": "prodigy", "adapter.rank": 32, "train.epochs": 12},
    "adafactor": {"optim.name": "adafactor", "optim.lr": 5e-4},
    "adamw8bit-baseline": {"optim.name": "adamw8bit", "optim.lr": 5e-4, "optim.text_lr": 1e-4, "adapter.rank": 32,
                           "train.steps": 3600},
    "came-locon-style": {"optim.name": "came", "optim.lr": 1e-4, "adapter.rank": 16, "adapter.alpha": 8.0,
                         "adapter.conv_rank": 16, "adapter.conv_alpha": 8.0, "optim.text_lr": 0.0, "train.batch": 4,
                         "train.epochs": 10, "loss.min_snr_gamma": 8.0, "adapter.dora": False},
    "came-dora-style": {"adapter.dora": True, "optim.lr": 1e-4},
    "came-locon-style-630": {"optim.name": "came", "optim.lr": 1e-4, "adapter.conv_rank": 16, "train.steps": 630,
                       "adapter.dora": False},
    "came-dora-style-630": {"adapter.dora": True, "adapter.conv_rank": 16, "train.steps": 630},
    "came-character": {"optim.name": "came", "optim.lr": 6e-5, "adapter.rank": 8, "adapter.alpha": 4.0},
    "came-style-small": {"optim.name": "came", "optim.lr": 1e-4},
    "adamw-style-large": {"optim.name": "adamw", "optim.lr": 5e-4, "adapter.rank": 16, "adapter.alpha": 8.0},
    "starter": {"optim.lr": 2e-3},
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_a_named_recipe_says_what_its_row_says(name):
    made = named(name, PLACES)
    assert made.base == "starter" and made.dataset[0].folder == "pics" and made.name == name
    for path, value in ROWS[name].items():
        section, key = path.split(".")
        assert getattr(getattr(made, section), key) == value, path


@pytest.mark.parametrize("name", METHODS)
def test_a_named_recipe_is_valid_to_the_last_option(name):
    from lorakiln.optim.optimizers import optimizers
    from lorakiln.optim.schedules import schedules
    from lorakiln.runs.build import adapter_spec

    made = named(name, PLACES)
    adapter_spec(made.adapter)
    assert set(made.optim.options) <= set(optimizers.options(made.optim.name))
    assert set(made.optim.schedule_options) <= set(schedules.options(made.optim.schedule))


def test_a_change_is_laid_over_a_named_recipe():
    assert named("came-dora-style", [*PLACES, "optim.lr=1.5e-4"]).optim.lr == 1.5e-4


@pytest.mark.parametrize(
    ("name", "changes", "line"),
    [
        ("came-dora", PLACES, "did you mean 'came-dora-style'"),
        (
            "starter",
            [],
            "add --set base=... and --set dataset.0.folder=..., for example --set base=pony.safetensors "
            "--set dataset.0.folder=my-pictures",
        ),
        ("came-dora-style", ["optim.lr=1e-4", "base=x"], "add --set dataset.0.folder=..., for example"),
        ("starter", [*PLACES, "optim.lrr=1"], "unknown setting 'optim.lrr'"),
    ],
)
def test_a_bad_name_or_change_is_one_line(name, changes, line):
    with pytest.raises(UserError) as error:
        named(name, changes)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_the_guides_own_sets_make_the_guides_own_steps():
    """T4: 2,560 or more. T7: 14 pictures, 336 steps. T9: 125 and 630. T10: 282 and 1,410 in 10 epochs."""
    for name, count, steps in (
        ("prodigy-long", 40, 2568),
        ("came-character", 14, 336),
        ("came-locon-style", 125, 630),
        ("adamw-style-large", 282, 2820),
    ):
        made = named(name, PLACES)
        visits = count * made.dataset[0].repeats
        assert -(-visits // made.train.batch) * made.train.epochs == steps
