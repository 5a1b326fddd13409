"""Norms, effective rank, dead, saturated and broken modules, on matrices worked by hand."""

import math

import pytest
import torch

from lorakiln.judge.weights import changed, effective_rank, spectral_norm, weigh

BASE = torch.eye(4) * 2  # norm 4, spectral norm 2


def diagonal(*values):
    return torch.diag(torch.tensor([*values, *[0.0] * (4 - len(values))]))


def test_effective_rank_counts_directions():
    assert effective_rank(diagonal(1, 1), 4) == (pytest.approx(2), pytest.approx(1))
    assert effective_rank(diagonal(3), 4)[0] == pytest.approx(1)
    assert 1 < effective_rank(diagonal(3, 1), 4)[0] < 2
    assert effective_rank(torch.zeros(4, 4), 4) == (0, 0)


def test_a_wide_matrix_of_low_rank_is_measured_exactly():
    rng = torch.Generator().manual_seed(0)
    up, down = torch.randn(90, 2, generator=rng), torch.randn(2, 70, generator=rng)
    exact = torch.linalg.svdvals(up @ down)[:2]
    found, largest = effective_rank(up @ down, 2)
    shares = exact / exact.sum()
    assert largest == pytest.approx(float(exact[0]), rel=1e-4)
    assert found == pytest.approx(float((-(shares * shares.log()).sum()).exp()), rel=1e-4)
    assert spectral_norm(up @ down) == pytest.approx(float(exact[0]), rel=1e-3)


def test_shares_are_of_the_base():
    one = changed("a", "block", diagonal(1, 1), BASE, rank=2)
    assert (one.share, one.spectral) == (pytest.approx(2**0.5 / 4), pytest.approx(0.5))


def test_dead_saturated_and_broken_modules_are_named():
    whole = weigh([
        changed("dead", "one", torch.zeros(4, 4), BASE, 2),
        changed("usual", "one", diagonal(1, 1), BASE, 2),
        changed("usual too", "two", diagonal(1, 1), BASE, 2),
        changed("loud", "two", diagonal(5), BASE, 2),
        changed("broken", "two", diagonal(math.nan), BASE, 2),
    ])  # fmt: skip
    assert (whole.dead, whole.saturated, whole.broken) == (("dead",), ("loud",), ("broken",))
    assert whole.blocks["one"] == pytest.approx((2 / 16 / 2) ** 0.5)
    assert whole.directions == pytest.approx((1 + 1 + 0.5) / 3)


def test_nothing_weighs_nothing():
    nothing = weigh([])
    assert nothing.share == 0 and nothing.blocks == {} and nothing.directions == 0
