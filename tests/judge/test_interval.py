"""Intervals by hand, with one picture, equal pictures and no numbers."""

import math

import pytest

from lorakiln.judge.interval import difference, interval


def test_an_interval_worked_by_hand():
    """1, 2, 3: mean 2, deviation 1, error 1 / sqrt 3; t of two degrees of freedom is 4.303."""
    found = interval([1, 2, 3])
    assert (found.mean, found.count) == (2, 3)
    assert found.high - found.mean == pytest.approx(4.303 / 3**0.5)
    assert not found.above(0) and interval([10, 11, 12]).above(0) and interval([-10, -11, -12]).below(0)


def test_one_picture_bounds_nothing():
    found = interval([0.3])
    assert found.mean == 0.3 and found.low == -math.inf and not found.above(-100)
    assert not difference([0.3], [0.1, 0.1]).above(0)


def test_equal_pictures_leave_no_doubt():
    assert interval([0.2] * 5).low == pytest.approx(0.2)
    assert difference([0.3] * 4, [0.1] * 5).low == pytest.approx(0.2)


def test_what_is_no_number_is_not_compared():
    for found in (interval([0.1, math.nan]), interval([]), difference([math.inf, 1], [0, 0])):
        assert not found.known and not found.above(-9) and not found.below(9)


def test_a_difference_worked_by_hand():
    """Errors of 1 / sqrt 3 on either side: sqrt(2 / 3) together, times t of two degrees of freedom."""
    found = difference([4, 5, 6], [1, 2, 3])
    assert found.mean == 3 and found.high - 3 == pytest.approx(4.303 * (2 / 3) ** 0.5)
