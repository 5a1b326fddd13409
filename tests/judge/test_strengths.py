"""The words, from curves over strengths worked by hand."""

import pytest

from lorakiln.judge.strengths import Rule, around_best, as_good, at, best, between, smoothed, word, words

STRENGTHS = (0.3, 0.5, 0.7, 0.9, 1.1, 1.4)
RULE = Rule(reach=0.06, little=1 / 3)


def curve(top: float, height: float = 1.0, bend: float = 1.0) -> dict[float, float]:
    """A parabola with its top at a strength."""
    return {t: height - bend * (t - top) ** 2 for t in STRENGTHS}


@pytest.mark.parametrize(
    ("top", "height", "expected"),
    [
        (1.45, 1.0, "underbaked"),
        (1.2, 1.0, "baked"),  # at 1.1 it is as good
        (0.6, 1.0, "baked"),  # and at 0.85
        (0.5, 0.96, "slightly overbaked"),
        (0.5, 0.9, "overbaked"),  # another of the run is better
        (0.1, 1.0, "overbaked"),
        (1.0, 0.3, "underbaked"),  # next to nothing
    ],
)
def test_the_word_follows_from_the_strengths_that_are_as_good_as_the_best(top, height, expected):
    assert word(curve(top, height), 1.0, RULE) == expected


def test_strengths_are_as_good_within_the_reach_and_the_base_is_one_of_them():
    low, high = as_good(curve(0.9, bend=2.0), 0.05)
    assert 0.7 <= low <= 0.8 and 1.0 <= high <= 1.1
    assert best({0.3: -1.0, 1.0: -0.5}) == 0
    assert as_good({0.3: -1.0, 1.0: -0.5}, 0.05) == (0.0, 0.01)


def test_what_gives_no_numbers_is_worth_what_the_base_is():
    assert best({}) == 0 and as_good({}, 0.05) == (0.0, 0.0) and at({}, 1.0) == 0


def test_worth_lies_on_the_straight_line_from_the_base_on():
    assert at({0.5: 0.2, 1.0: 0.4}, 0.25) == pytest.approx(0.1)
    assert at({0.5: 0.2, 1.0: 0.4}, 0.75) == pytest.approx(0.3)
    assert at({0.5: 0.2, 1.0: 0.4}, 2.0) == 0.4


def test_a_parabola_through_the_base_stands_for_points_that_lie_near_it():
    """2 t - t^2 with 0.02 up and down; one that lies 0.2 off leaves the points as they are."""
    exact = {t: 2 * t - t**2 for t in STRENGTHS}
    shaken = {t: worth + 0.02 * (-1) ** n for n, (t, worth) in enumerate(exact.items())}
    found = smoothed(shaken, 0.06)
    assert found[1.0] == pytest.approx(1, abs=0.01) and list(found)[-1] == 1.4
    assert smoothed(exact, 0.06)[0.5] == pytest.approx(0.75)
    broken = exact | {0.9: 0.7}
    assert smoothed(broken, 0.06) == broken
    assert smoothed({0.5: 0.1, 1.0: 0.2}, 0.06) == {0.5: 0.1, 1.0: 0.2}


def test_a_stretch_around_the_best_ends_where_it_is_worse():
    valley = {0.5: 1.0, 0.7: 0.5, 0.9: 0.98}
    assert as_good(valley, 0.1)[1] == 0.9 and around_best(valley, 0.1) == (0.45, 0.54)


def test_a_step_between_two_is_worth_what_lies_between():
    known = {10: {0.5: 0.2, 1.0: 0.4}, 30: {0.5: 0.4, 1.0: 0.0}}
    assert between(known, 15) == {0.5: pytest.approx(0.25), 1.0: pytest.approx(0.3)}
    assert between(known, 5) == known[10] and between(known, 99) == known[30]


def test_a_run_is_measured_by_its_own_best():
    sharp = curve(0.6, 0.8, bend=5.0)
    assert words([curve(0.6, 1.0, bend=5.0), sharp], RULE) == ["slightly overbaked", "overbaked"]


def test_what_falls_short_before_the_best_checkpoint_is_underbaked_and_after_it_not():
    short, good = curve(1.0, 0.7), curve(1.0, 1.0)
    assert words([short, good, short], RULE) == ["underbaked", "baked", "baked"]
    near = curve(0.9, 0.8)
    assert words([near, good], RULE) == ["baked", "baked"]


def test_next_to_nothing_after_something_is_what_training_broke():
    flat = dict.fromkeys(STRENGTHS, 0.2)
    assert words([flat, curve(1.0, 1.0), flat], RULE) == ["underbaked", "baked", "overbaked"]
    assert words([dict.fromkeys(STRENGTHS, 0.25), flat], RULE) == ["underbaked"] * 2, "there never was anything"
    late = {t: 0.3 if t > 1.2 else 0.0 for t in STRENGTHS}
    assert words([curve(1.0, 1.0), late], RULE)[1] == "overbaked"


def test_a_flat_curve_has_learned_nothing_yet_and_a_harmful_one_too_much():
    flat = {t: 0.02 - 0.01 * t for t in STRENGTHS}
    harmful = {t: 0.05 - t for t in STRENGTHS}
    within_noise = {0.3: 0.02, 0.5: 0.055, 0.7: 0.03, 0.9: 0.01, 1.1: 0.0, 1.4: -0.03}
    assert words([within_noise], RULE) == ["underbaked"]
    assert words([flat], RULE) == ["underbaked"]
    assert words([harmful], RULE) == ["overbaked"]
    assert words([harmful, curve(1.0, 1.0)], RULE)[0] == "underbaked", "training on mends it"
    assert words([harmful, curve(1.0, 0.3)], RULE)[0] == "overbaked", "to nothing worth having"


def test_next_to_nothing_is_never_slightly_overbaked():
    assert words([curve(0.7, -1.0)], RULE) == ["overbaked"]
    little = {0.3: 0.1, 0.5: 0.1, 0.7: 0.07, 0.9: -0.3, 1.1: -0.5, 1.4: -1.0}
    assert words([little], RULE) == ["overbaked"], "0.1 is next to nothing"
