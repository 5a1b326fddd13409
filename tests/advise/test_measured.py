"""A step's time from remembered runs: which are believed, and how another recipe is scaled."""

import platform
from dataclasses import replace

import pytest

from lorakiln.advise.cards import card
from lorakiln.advise.estimate import Time, duration, flops
from lorakiln.advise.measured import comparable, refined
from lorakiln.base.ledger import Entry
from tests.advise.cases import base, pictures, recipe

RTX = card("rtx4090")
TIME = Time((0.1, 0.2), (5.0, 40.0), 600)
RUN = Entry(
    "1", "mika", "finished", base="sd_xl_base_1.0.safetensors", device="NVIDIA GeForce RTX 4090", timed_steps=100,
    seconds={"load base": 20.0, "train": 50.0, "save": 3.0}, recipe=recipe().model_dump(),
)  # fmt: skip


def test_one_run_gives_its_own_step_give_or_take_a_tenth():
    found = refined(TIME, recipe(), base(), [RUN], RTX)
    assert found.step == (pytest.approx(0.45), pytest.approx(0.55)) and found.measured == 1
    assert found.whole[0] == pytest.approx(5 + 600 * 0.45), "what comes before the first step stays calculated"


def test_several_runs_give_their_span_and_the_likest_count():
    runs = [replace(RUN, seconds={"train": seconds}) for seconds in (40.0, 50.0, 70.0)]
    found = refined(TIME, recipe(), base(), runs, RTX)
    assert found.step == (pytest.approx(0.4), pytest.approx(0.7)) and found.measured == 3
    far = replace(RUN, seconds={"train": 900.0}, recipe=recipe(train={"batch": 8}).model_dump())
    assert refined(TIME, recipe(), base(), [far, *runs, *runs], RTX).step[1] == pytest.approx(0.7)


def test_another_batch_or_size_is_scaled_by_its_arithmetic():
    double = refined(TIME, recipe(train={"batch": 4, "accumulate": 2}), base(), [RUN], RTX)
    assert double.step[0] == pytest.approx(8 * 0.45)
    small = recipe(dataset=[{"folder": "p", "resolution": 512}])
    ratio = flops(small, base()) / flops(recipe(), base())
    assert ratio < 0.3 and refined(TIME, small, base(), [RUN], RTX).step[0] == pytest.approx(0.45 * ratio)


@pytest.mark.parametrize(
    "other",
    [
        {"origin": "theirs.json"},
        {"device": "NVIDIA GeForce RTX 3060"},
        {"device": "CPU x86_64", "host": platform.node()},
        {"base": "ponyDiffusionV6XL.safetensors"},
        {"timed_steps": 4},
        {"seconds": {"load base": 9.0}},
        {"recipe": recipe(train={"precision": "fp32"}).model_dump()},
        {"recipe": recipe().model_dump() | {"of_tomorrow": 1}},
        {"recipe": {}},
    ],
    ids=lambda other: next(iter(other)),
)
def test_runs_that_say_nothing_of_this_one_are_left_out(other):
    assert comparable(recipe(), base(), [replace(RUN, **other)], RTX) == []
    assert refined(TIME, recipe(), base(), [replace(RUN, **other)], RTX) is TIME


def test_on_a_cpu_only_runs_of_this_very_machine_count():
    here = replace(RUN, device="CPU x86_64", host=platform.node(), base="starter")
    found = refined(TIME, recipe(), base("starter"), [here], None)
    assert found.step[0] == pytest.approx(0.45) and found.first == (23.0, 23.0)
    assert refined(TIME, recipe(), base("starter"), [replace(here, host="elsewhere")], None) is TIME


def test_what_is_calculated_says_so():
    assert duration(recipe(), base(), pictures(60), RTX).measured == 0
