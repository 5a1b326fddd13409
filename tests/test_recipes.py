"""Every recipe that ships can be read, and says what its values do."""

from pathlib import Path

import pytest

from lorakiln.adapters.spec import OPTIONS
from lorakiln.base import recipe as recipes
from lorakiln.base.settings import Adapter
from lorakiln.base.settings.optim import OPTIMIZERS, Optim
from lorakiln.optim.optimizers import optimizers
from lorakiln.optim.schedules import schedules
from lorakiln.runs.build import adapter_spec
from lorakiln.sample.sampler import samplers

ROOT = Path(__file__).parent.parent
RECIPES = sorted([*(ROOT / "recipes").glob("*.toml"), *(ROOT / "lorakiln").glob("**/recipes/*.toml")])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_valid_to_the_last_option(path):
    recipe = recipes.read(path)
    adapter_spec(recipe.adapter)
    if recipe.optim.name in OPTIMIZERS:
        assert set(recipe.optim.options) <= set(optimizers.options(recipe.optim.name))
    assert set(recipe.optim.schedule_options) <= set(schedules.options(recipe.optim.schedule))


def choices(section, name) -> set[str]:
    return set(section.model_fields[name].annotation.__args__)


def test_settings_offer_exactly_the_parts_that_there_are():
    """`base` knows the names without torch; here they are held against the parts themselves."""
    from lorakiln.base.settings import Sample

    assert set(OPTIMIZERS) == set(optimizers)
    assert choices(Optim, "schedule") == set(schedules)
    assert choices(Sample, "sampler") == set(samplers)
    assert choices(Adapter, "kind") == set(OPTIONS)


def test_each_adapter_option_is_a_setting_of_the_same_name():
    options = {option for names in OPTIONS.values() for option in names}
    assert options == set(Adapter.model_fields) - {"kind"}
