"""The proof's sums: rows of measured checkpoints to right words, what the judge says, and how often the two agree."""

from pathlib import Path

import pytest

from benchmarks import judge as proof
from benchmarks.judge_styles import TABLE

ROOT = Path(__file__).parents[2]


def row(case: str, step: int, top: float, likeness: float, sees: float = 0.0, bend: float = 2.0) -> dict:
    """A checkpoint whose likeness to the style has its best at a strength; the judge sees it `sees` higher."""
    worth = {t: likeness - bend * (t - top) ** 2 for t in proof.truth.STRENGTHS}
    drawn = {f"{t:g}": {"style": each + sees, "copied": 0.0} for t, each in worth.items()}
    return {"style": "s", "case": case, "checkpoint": f"step{step}", "step": step,
            "truth": {f"{t:g}": [each, 0.0, 0.0] for t, each in worth.items()}, "curve": {"1": [0.1] * 4},
            "trained": None, "gap": None, "drawn": drawn, "heldout": 4}  # fmt: skip


def test_words_are_compared_and_the_choice_is_weighed():
    rows = [row("a", 1, 1.0, 0.8), row("a", 2, 0.4, 0.7, 0.2), row("b", 1, 0.4, 0.8), row("c", 1, 0.9, 0.1, 0.4)]
    wrong, over, little = proof.outcomes(rows)
    assert (wrong.words, wrong.said) == (["baked", "overbaked"], ["baked", "slightly overbaked"])
    assert (wrong.best, wrong.chosen) == (pytest.approx(0.78), pytest.approx(0.68)) and not wrong.right_checkpoint
    assert (over.words, over.said) == (["slightly overbaked"], ["slightly overbaked"])
    assert over.right_checkpoint and over.as_good and over.used == pytest.approx(0.78, abs=0.02)
    assert (little.words, little.said) == (["underbaked"], ["baked"])
    found = proof.summary(rows)
    assert found["checkpoints"] == 4 and found["verdict_accuracy"] == 0.5
    assert found["best_within_5pct"] == pytest.approx(2 / 3)
    assert proof.crossed(rows)[2] == "| underbaked | 0 | 1 | 0 | 0 |"
    assert proof.summary([])["runs"] == 0


def test_a_truth_far_from_every_edge_would_say_the_same_again():
    clear = [row("a", 1, 1.0, 0.8, bend=8), row("b", 1, 0.3, 0.8, bend=8)]
    assert proof.again(clear, 5) == {"words_again": 1.0, "choices_again": 1.0}
    edge = [{**row("a", 1, 1.0, 0.8), "truth": {"0.9": [0.5, 0, 0], "1.4": [0.561, 0, 0]}}]
    assert 0.2 < proof.again(edge, 50)["words_again"] < 0.9


def test_wilsons_interval_by_hand():
    """8 of 10: (0.8 + 0.19208) / 1.38416, give or take 1.96 sqrt(0.016 + 0.009604) / 1.38416."""
    low, high = proof.wilson(8, 10)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-3), pytest.approx(0.9433, abs=1e-3))


def test_the_docs_tell_what_the_rows_say():
    rows, text = proof.read_rows(TABLE), (ROOT / "docs" / "judge.md").read_text(encoding="utf-8")
    found = proof.summary(rows)
    assert f"{found['checkpoints']} checkpoints of {found['runs']} runs" in text
    for name in ("verdict_accuracy", "best_within_5pct", "strength_as_good"):
        share, low, high = (found[name + end] for end in ("", "_low", "_high"))
        assert f"| `{name}` | {share:.2f} ({low:.2f} to {high:.2f}) |" in text
    assert "\n".join(proof.crossed(rows)) in text
    itself = proof.again(rows)
    assert f"in {itself['words_again']:.0%} of the words and {itself['choices_again']:.0%} of the choices" in text
