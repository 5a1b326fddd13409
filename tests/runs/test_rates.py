"""Which learning rate each trained tensor gets: its part's, times the rules that name it, times LoRA+'s.

And widths that were given where they do nothing.
"""

import pytest

from lorakiln.adapters.inject import inject
from lorakiln.adapters.spec import AdapterSpec
from lorakiln.base.errors import UserError
from lorakiln.base.settings import Adapter, Optim
from lorakiln.runs.build import idle_widths, rate_groups
from tests.adapters.models import tiny_unet, unet_names


@pytest.fixture
def network():
    made = inject({"unet": tiny_unet()}, unet_names(), AdapterSpec(rank=2), 0)
    yield made
    made.remove()


def rates_of(network, **options):
    """Each trained tensor's name -> its group's rate, where the UNet's is 1e-4."""
    groups, rates = rate_groups(Optim(**options), network, {"unet": 1e-4})
    assert groups.keys() == rates.keys()
    by_parameter = {id(one): rates[name] for name, group in groups.items() for one in group}
    return {trained.name: by_parameter[id(trained.parameter)] for trained in network.trained()}


def test_without_rules_there_is_one_rate_a_part(network):
    assert set(rates_of(network).values()) == {1e-4}
    assert list(rate_groups(Optim(), network, {"unet": 1e-4})[1]) == ["unet"]


def test_loraplus_is_for_the_matrices_that_start_at_zero(network):
    for name, rate in rates_of(network, loraplus=16.0).items():
        assert rate == pytest.approx(1.6e-3 if name.endswith("lora_up.weight") else 1e-4)


def test_the_last_rule_that_matches_counts_and_loraplus_comes_on_top(network):
    rules = [{"pattern": "*attn*", "factor": 0.5}, {"pattern": "*attn2*", "factor": 0.25}]
    for name, rate in rates_of(network, rates=rules, loraplus=4.0).items():
        factor = 0.25 if "attn2" in name else 0.5 if "attn" in name else 1
        assert rate == pytest.approx(1e-4 * factor * (4 if name.endswith("lora_up.weight") else 1)), name


def test_a_pattern_may_be_a_path_of_the_models_own(network):
    rates = rates_of(network, rates=[{"pattern": "mid_block.*", "factor": 0.0}])
    assert {name for name, rate in rates.items() if rate == 0} == {name for name in rates if "middle_block" in name}


def test_a_pattern_without_a_trained_layer_is_an_error(network):
    rules = [{"pattern": "*attn1*", "factor": 0.5}, {"pattern": "*atn2*", "factor": 0.5}]
    with pytest.raises(UserError, match=r"optim\.rates: the pattern '\*atn2\*' matches no trained layer of unet"):
        rates_of(network, rates=rules)


def test_a_whole_lokr_tells_which_of_its_widths_do_nothing():
    notes = idle_widths(Adapter(kind="lokr", full_matrix=True, alpha=1.0, rank_stabilised=True))
    assert [note.partition(":")[0] for note in notes] == ["adapter.alpha", "adapter.rank_stabilised"]
    assert not idle_widths(Adapter(kind="lokr", full_matrix=True)) and not idle_widths(Adapter(kind="lokr", rank=4))
