"""How thoroughly to judge follows from the time there is; the finalists from the gains."""

import math

import pytest

from lorakiln.judge.plan import PLANS, choose, finalists, spread


def test_plans_cost_less_and_less():
    costs = [plan.cost(5, 20, 40) for plan in PLANS]
    assert costs == sorted(costs, reverse=True) and costs[0] > 8 * costs[-1]


def test_a_cost_worked_by_hand():
    """6 timesteps on 4 + 4 pictures of the base, then for each of 2 LoRAs 4 at 5 strengths and 4 trained ones; drawings
    of 8 steps, twice with guidance: 3 prompts with 2 seeds of the base, and 3 of one finalist; 40 pictures through the
    VAE."""
    plan = PLANS[-1]
    assert plan.cost(2, 4, 40) == 6 * (8 + 2 * (20 + 4)) + 40 + 2 * 8 * (3 * 2 + 3)
    assert plan.cost(2, 0, 40) == 6 * (4 + 2 * 20) + 40 + 2 * 8 * (3 * 2 + 3)


def test_the_most_thorough_plan_that_fits():
    assert choose(1e9, 1.0, 5, 20, 40)[0] is PLANS[0]
    assert choose(0, 1.0, 5, 20, 40)[0] is PLANS[1]
    needs = PLANS[3].cost(5, 20, 40) / 100
    assert choose(needs, 100.0, 5, 20, 40) == (PLANS[3], pytest.approx(needs))
    assert choose(needs * 0.999, 100.0, 5, 20, 40)[0] is PLANS[4]
    assert choose(0.001, 1.0, 5, 20, 40)[0] is PLANS[-1], "the quickest, where none fits"


def test_pictures_are_spread_over_the_set():
    assert spread(3, 5) == [0, 1, 2] and spread(10, 5) == [0, 2, 4, 6, 8] and spread(0, 5) == []


def test_the_last_checkpoint_and_the_best_others_are_drawn_with():
    assert finalists([0.1, 0.3, 0.2, 0.0], 2) == [1, 3]
    assert finalists([0.1, 0.3, 0.2, 0.0], 9) == [0, 1, 2, 3]
    assert finalists([0.1, 0.3, math.nan], 1) == [1]
    assert finalists([0.1, 0.3, 0.2, math.nan], 2) == [1, 2], "what is not a number draws nothing"
    assert finalists([math.nan, math.nan], 1) == [1]
    assert finalists([0.5, 0.4, 0.3, 0.2, 0.1], 3) == [0, 2, 4], "the last, the best, and the furthest from both"
    assert finalists([0.1], 2) == [0]
