"""The proof's sums: rows of measured checkpoints to right words, what the judge says, and how often the two agree."""

import pytest

from benchmarks import judge as proof
from lorakiln.judge.verdict import STRENGTHS


def row(case: str, step: int, top: float, likeness: float) -> dict:
    """A checkpoint whose gain and whose likeness to the style both have their best at a strength."""
    curve = {f"{t:g}": [0.2 - 0.2 * (t - top) ** 2] * 4 for t in STRENGTHS}
    quality = {f"{t:g}": [likeness - 2 * (t - top) ** 2, 0.0, 0.0] for t in proof.truth.STRENGTHS}
    return {"style": "s", "case": case, "checkpoint": f"step{step}", "step": step, "truth": quality, "curve": curve,
            "trained": None, "gap": None, "drawn": {}, "heldout": 4}  # fmt: skip


def test_words_are_compared_and_the_choice_is_weighed():
    rows = [row("a", 1, 1.0, 0.8), row("b", 1, 0.4, 0.8), row("c", 1, 0.9, 0.1)]
    good, over, little = proof.outcomes(rows)
    assert (good.words, good.said) == (["baked"], ["baked"]) and good.lost < 0.04
    assert (over.words, over.said) == (["slightly overbaked"], ["overbaked"])
    assert (little.words, little.said) == (["underbaked"], ["baked"]), "the losses cannot see how little it is"
    found = proof.summary(rows)
    assert found["checkpoints"] == 3 and found["verdict_accuracy"] == pytest.approx(1 / 3)
    assert proof.crossed(rows)[3] == "| baked | 0 | 1 | 0 | 0 |"
    assert proof.summary([])["runs"] == 0


def test_wilsons_interval_by_hand():
    """8 of 10: (0.8 + 0.19208) / 1.38416, give or take 1.96 sqrt(0.016 + 0.009604) / 1.38416."""
    low, high = proof.wilson(8, 10)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-3), pytest.approx(0.9433, abs=1e-3))
