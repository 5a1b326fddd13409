"""Adapters go where kohya's tools put theirs, or where the patterns say."""

import re

import pytest
import torch
from torch import nn

from lorakiln.adapters.inject import inject
from lorakiln.adapters.spec import AdapterSpec, RankRule, make_spec
from lorakiln.adapters.targets import choose
from lorakiln.base.errors import UserError
from tests.adapters.models import meta_sdxl, tiny_unet, unet_names

COUNTS = {"unet": 722, "te1": 72, "te2": 192}


@pytest.mark.parametrize("part", COUNTS)
def test_true_sdxl_gets_kohyas_number_of_adapters(part):
    module, names = meta_sdxl(part)
    chosen = choose({part: module}, {part: names}, AdapterSpec())
    assert len(chosen) == COUNTS[part]
    assert all(isinstance(place.layer, nn.Linear) for place, _, _ in chosen)


def test_true_sdxl_with_convolutions_gets_788_and_two_ranks():
    module, names = meta_sdxl("unet")
    spec = AdapterSpec(rank=16, alpha=16, conv_rank=4, conv_alpha=2)
    network = inject({"unet": module}, {"unet": names}, spec, 0)
    assert len(network.adapters) == 788
    ranks = {adapter.place.name: (adapter.width.rank, adapter.width.alpha) for adapter in network.adapters}
    assert ranks["lora_unet_input_blocks_4_0_skip_connection"] == (16, 16)  # 1x1: the network's rank
    assert ranks["lora_unet_input_blocks_4_0_emb_layers_1"] == (16, 16)
    assert ranks["lora_unet_input_blocks_4_0_in_layers_2"] == (4, 2)
    assert ranks["lora_unet_output_blocks_2_2_conv"] == (4, 2)
    parameters = sum(trained.parameter.numel() for trained in network.trained())
    assert parameters > 42_557_440
    network.remove()
    # a convolutional network once spoiled every later plain one in sd-scripts: 750 instead of 722
    again = inject({"unet": module}, {"unet": names}, AdapterSpec(rank=16, alpha=16), 0)
    assert len(again.adapters) == 722
    assert sum(trained.parameter.numel() for trained in again.trained()) == 42_557_440


def test_names_are_kohyas():
    network = inject({"unet": tiny_unet()}, unet_names(), AdapterSpec(rank=2), 0)
    names = set(network.state_dict())
    network.remove()
    stem = "lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_q"
    assert {f"{stem}.lora_down.weight", f"{stem}.lora_up.weight", f"{stem}.alpha"} <= names


def test_patterns_pick_and_leave_out():
    spec = AdapterSpec(targets=("*attn2*",), exclude=("*to_out*",), rank=2)
    chosen = choose({"unet": tiny_unet()}, unet_names(), spec)
    assert chosen and all("attn2" in place.name and "to_out" not in place.name for place, _, _ in chosen)


def test_ranks_by_pattern_the_last_match_winning():
    rules = (RankRule("*attn1*", 8, 4.0), RankRule("*attn1_to_k", 2), RankRule("*ff_net*", 0))
    chosen = choose({"unet": tiny_unet()}, unet_names(), AdapterSpec(rank=4, alpha=4, ranks=rules))
    widths = {place.name: (rank, alpha) for place, rank, alpha in chosen}
    assert widths["lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q"] == (8, 4.0)
    assert widths["lora_unet_middle_block_1_transformer_blocks_0_attn1_to_k"] == (2, 2.0)
    assert widths["lora_unet_middle_block_1_proj_in"] == (4, 4)
    assert not any("ff_net" in name for name in widths)


IDLE = {
    "targets: the pattern '*atn1*' matches no layer of unet": {"targets": ("*attn2*", "*atn1*")},
    "ranks: the pattern 'nothing' matches no layer of unet": {"ranks": (RankRule("nothing", 4),)},
    "exclude: the pattern 'nothing' matches no layer of unet": {"exclude": ("nothing",)},
    "targets: the pattern '*in_layers_2' matches only convolutions, which need a rank": {
        "targets": ("*attn1*", "*in_layers_2")
    },
    "exclude: the pattern '*in_layers_2' matches only layers that are not": {"exclude": ("*in_layers_2",)},
    "exclude: the pattern '*attn2*' matches only layers that are not": {
        "targets": ("*attn1*",),
        "exclude": ("*attn2*",),
    },
    "ranks: the pattern '*attn2*' matches only layers that are not": {
        "targets": ("*attn1*",),
        "ranks": (RankRule("*attn2*", 4),),
    },
    "ranks: the pattern '*attn1*' matches only layers that are not": {
        "exclude": ("*attn1*",),
        "ranks": (RankRule("*attn1*", 4),),
    },
}


@pytest.mark.parametrize("message", IDLE)
def test_a_pattern_that_does_nothing_is_an_error(message):
    with pytest.raises(UserError, match=re.escape(f"adapter.{message}")):
        choose({"unet": tiny_unet()}, unet_names(), AdapterSpec(**IDLE[message]))


def test_a_rule_alone_gives_named_convolutions_a_rank():
    spec = AdapterSpec(targets=("*in_layers_2",), ranks=(RankRule("*in_layers_2", 3),))
    chosen = choose({"unet": tiny_unet()}, unet_names(), spec)
    assert chosen and {rank for _, rank, _ in chosen} == {3}


def notes(**options):
    network = inject({"unet": tiny_unet()}, unet_names(), AdapterSpec(**options), 0)
    network.remove()
    return network.notes


def test_convolutions_that_the_targets_name_and_nothing_gives_a_rank_are_told():
    (note,) = notes(targets=("*middle_block*",))
    assert note.startswith("adapter.conv_rank = 0: 4 convolutions that adapter.targets names")
    assert not notes(targets=("*middle_block*",), conv_rank=2) and not notes()


def test_lokr_tells_which_layers_are_too_small_for_their_rank():
    (note,) = notes(kind="lokr", rank=8, factor=4)
    assert re.match(r"adapter\.rank: \d+ of \d+ layers are too small for it, such as lora_unet_\w+ for rank 8", note)
    assert not notes(kind="lokr", rank=1) and not notes(kind="lokr", full_matrix=True)


def test_first_values_depend_on_seed_and_name_alone():
    def downs(parts, seed, **options):
        network = inject(parts, unet_names(), AdapterSpec(rank=2, **options), seed)
        network.remove()
        return {t.name: t.parameter.detach().clone() for t in network.trained() if not t.fast}

    whole, few = downs({"unet": tiny_unet()}, 1), downs({"unet": tiny_unet()}, 1, targets=("*attn2*",))
    assert few and all(torch.equal(few[name], whole[name]) for name in few)
    other = downs({"unet": tiny_unet()}, 2)
    assert not any(torch.equal(other[name], whole[name]) for name in other)
    assert len({tensor.flatten()[0].item() for tensor in whole.values()}) == len(whole)


def test_down_starts_uniform_within_one_over_root_fan_in():
    holder = nn.Module()
    holder.layer = nn.Conv2d(64, 8, 3)
    spec = AdapterSpec(targets=("*",), conv_rank=32, conv_alpha=32)
    network = inject({"unet": holder}, {"unet": {"layer": "lora_unet_layer"}}, spec, 0)
    down = network.state_dict()["lora_unet_layer.lora_down.weight"]
    bound = (64 * 9) ** -0.5
    assert 0.99 * bound < down.abs().max() <= bound
    assert abs(down.var().item() * 3 / bound**2 - 1) < 0.03


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_dora": True}, "did you mean 'dora = true'"),
        ({"factor": 4}, "lora has no such option .*conv_rank"),
        ({"alpha": 0}, "above 0"),
        ({"rank": 0}, "whole number from 1"),
        ({"module_dropout": 1.0}, "below 1"),
        ({"tucker": True}, "no effect without conv_rank"),
        ({"dora_axis": "output"}, "no effect without dora"),
    ],
)
def test_an_option_that_cannot_work_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        make_spec("lora", options)


def test_an_unknown_kind_is_refused():
    with pytest.raises(UserError, match="did you mean 'lokr'"):
        make_spec("lokrr", {})
    with pytest.raises(UserError, match="lora has no such option"):
        AdapterSpec(factor=4)
