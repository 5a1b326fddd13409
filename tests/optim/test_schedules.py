"""Schedules follow diffusers' and transformers' where those have the part, and hand-worked numbers elsewhere."""

import diffusers.optimization
import pytest
import torch
import transformers.optimization

from lorakiln.base.errors import UserError
from lorakiln.optim.schedules import schedules

TOTAL, RATE = 40, 3e-3


def rates(peer, **options):
    """The rate of each update under a peer's scheduler."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    scheduler = peer(optimizer, **options)
    found = []
    for _ in range(TOTAL + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


PEERS = [
    ("constant", {}, diffusers.optimization.get_constant_schedule_with_warmup, {}),
    ("linear", {}, diffusers.optimization.get_linear_schedule_with_warmup, {}),
    ("linear", {"min_ratio": 0.1}, diffusers.optimization.get_linear_schedule_with_warmup, {"f_min": 0.1}),
    ("cosine", {}, diffusers.optimization.get_cosine_schedule_with_warmup, {}),
    (
        "cosine",
        {"min_ratio": 0.1},
        transformers.optimization.get_cosine_with_min_lr_schedule_with_warmup,
        {"min_lr_rate": 0.1},
    ),
    (
        "cosine_restarts",
        {"cycles": 3},
        diffusers.optimization.get_cosine_with_hard_restarts_schedule_with_warmup,
        {"num_cycles": 3},
    ),
    (
        "polynomial",
        {"power": 3.0, "min_ratio": 0.2},
        diffusers.optimization.get_polynomial_decay_schedule_with_warmup,
        {"power": 3.0, "lr_end": 0.2 * RATE},
    ),
]


@pytest.mark.parametrize(("name", "options", "peer", "theirs"), PEERS)
@pytest.mark.parametrize("warmup", [0, 8])
def test_schedules_are_the_peers_after_the_warm_up(name, options, peer, theirs, warmup):
    if name != "constant":
        theirs = theirs | {"num_training_steps": TOTAL}
    expected = rates(peer, num_warmup_steps=warmup, **theirs)[warmup:TOTAL]
    ours = [RATE * schedules[name](step, TOTAL, warmup, **options) for step in range(warmup, TOTAL)]
    assert ours == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_warm_up_is_the_peers_without_its_idle_first_step():
    # on purpose: theirs spends the first update at rate 0
    theirs = rates(diffusers.optimization.get_constant_schedule_with_warmup, num_warmup_steps=9)
    ours = [RATE * schedules["constant"](step, TOTAL, 8) for step in range(12)]
    assert theirs[0] == 0 and ours[0] > 0
    assert ours == pytest.approx(theirs[1:13])


def test_warmup_stable_decay_is_transformers():
    peer = transformers.optimization.get_wsd_schedule
    theirs = rates(
        peer, num_warmup_steps=0, num_decay_steps=10, num_training_steps=TOTAL, decay_type="linear", min_lr_ratio=0.1
    )
    ours = [RATE * schedules["wsd"](step, TOTAL, decay=0.25, min_ratio=0.1) for step in range(TOTAL + 1)]
    assert ours == pytest.approx(theirs)


def test_rex_by_hand():
    # z = 1, 3/4, 1/2, 1/4, 0 gives z / (1/2 + z/2) = 1, 6/7, 2/3, 2/5, 0
    assert [schedules["rex"](step, 4) for step in range(5)] == pytest.approx([1, 6 / 7, 2 / 3, 2 / 5, 0])
    assert schedules["rex"](2, 4, min_ratio=0.1) == pytest.approx(0.1 + 0.9 * 2 / 3)


def test_restarts_by_hand():
    found = [schedules["cosine_restarts"](step, 8, cycles=2, min_ratio=0.5) for step in range(9)]
    wave = [1, 0.5 + 0.25 * (1 + 0.5**0.5), 0.75, 0.5 + 0.25 * (1 - 0.5**0.5)]
    assert found == pytest.approx([*wave, *wave, 0.5])


def test_a_share_of_warm_up_is_the_same_number_of_steps():
    for step in range(20):
        assert schedules["cosine"](step, TOTAL, 0.2) == schedules["cosine"](step, TOTAL, 8)
    assert schedules["cosine"](0, TOTAL, 1) == 0.5  # 1 is one step, not the whole run


@pytest.mark.parametrize("name", list(schedules))
def test_every_schedule_starts_full_never_leaves_0_to_1_and_moves_its_last_step(name):
    found = [schedules[name](step, TOTAL) for step in range(TOTAL)]
    assert found[0] == 1
    assert all(0 < factor <= 1 for factor in found)
    warm = [schedules[name](step, TOTAL, 10) for step in range(11)]
    assert warm == pytest.approx([(step + 1) / 11 for step in range(11)])


@pytest.mark.parametrize(
    ("warmup", "match"), [(41, "longer than the run of 40 steps"), (-1, "must be a share"), (2.5, "must be a share")]
)
def test_an_impossible_warm_up_is_refused(warmup, match):
    with pytest.raises(UserError, match=match):
        schedules["cosine"](0, TOTAL, warmup)


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("constant", {"min_ratio": 0.1}, "schedule 'constant' has no option 'min_ratio'; it has none"),
        ("wsd", {"cycles": 2}, "schedule 'wsd' has no option 'cycles'; it has decay, min_ratio"),
        ("cosine", {"min_ratio": 2}, "min_ratio = 2: must be from 0 to 1"),
        ("cosine_restarts", {"cycles": 1.5}, "whole number"),
        ("polynomial", {"power": 0}, "above 0"),
        ("cosine", {"min_ratio": "0.1"}, "schedule 'cosine': min_ratio = '0.1': must be a number"),
    ],
)
def test_bad_options_are_refused(name, options, match):
    with pytest.raises(UserError, match=match):
        schedules[name](0, TOTAL, **options)


def test_an_unknown_schedule_names_the_nearest():
    with pytest.raises(UserError, match="unknown schedule 'cosin'; did you mean 'cosine'"):
        schedules["cosin"]
