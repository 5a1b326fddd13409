"""The word, the best checkpoint and its strengths, from measures written by hand."""

import math

import pytest

from lorakiln.advise.evidence import evidence
from lorakiln.judge.interval import interval
from lorakiln.judge.verdict import COPYING, STRENGTHS, UNSURE, Drawn, Measured, judge, with_drawn


def checkpoint(name: str, top: float, height: float = 0.2, step: int = 1, **known) -> Measured:
    """One whose gain is a parabola over strengths, on four held-out pictures."""
    curve = {s: [height - 0.2 * (s - top) ** 2 + n / 1000 for n in (-1, 0, 0, 1)] for s in STRENGTHS}
    return Measured(name, step, curve, **known)


@pytest.mark.parametrize(
    ("top", "height", "expected"),
    [
        (1.3, 0.2, "underbaked"),
        (1.0, 0.2, "baked"),
        (0.86, 0.1, "baked"),
        (0.6, 0.198, "slightly overbaked"),
        (0.6, 0.15, "overbaked"),
        (0.35, 0.2, "overbaked"),
    ],
)
def test_the_word_follows_from_the_strength_that_suits_held_out_pictures(top, height, expected):
    found = judge([checkpoint("reference", 1.0, 0.2), checkpoint("last", top, height)], heldout=4)
    assert found.word == found.words["last"] == expected


def test_what_may_be_noise_is_not_called_overbaked():
    """0.15 of 0.2 falls short on every picture; the same means fall within what pictures differ by."""

    def uneven(name: str, top: float, gains: list[float]) -> Measured:
        return Measured(name, 1, {s: [gain - 0.2 * (s - top) ** 2 for gain in gains] for s in STRENGTHS})

    reference = uneven("reference", 1.0, [0.1, 0.3, 0.15, 0.25])
    clear, doubtful = uneven("a", 0.6, [0.05, 0.25, 0.1, 0.2]), uneven("a", 0.6, [0.25, 0.05, 0.25, 0.05])
    assert judge([reference, clear], 4).word == "overbaked"
    assert judge([reference, doubtful], 4).word == "slightly overbaked"


def test_one_picture_shows_no_noise_so_its_gain_alone_decides():
    def single(name: str, top: float, height: float) -> Measured:
        return Measured(name, 1, {s: [height - 0.2 * (s - top) ** 2] for s in STRENGTHS})

    assert judge([single("reference", 1.0, 0.2), single("a", 0.6, 0.15)], 1).word == "overbaked"
    assert judge([single("reference", 1.0, 0.2), single("a", 0.6, 0.199)], 1).word == "slightly overbaked"


def test_the_top_lies_between_the_points():
    assert checkpoint("a", 0.93).top() == (pytest.approx(0.93), pytest.approx(0.2))
    assert Measured("a", 1, {1.0: [0.1]}).top() == (1.0, 0.1)


def test_a_lora_that_only_harms_is_overbaked_and_one_that_does_nothing_underbaked():
    harmful, idle = (Measured("a", 1, {s: [gain * s] * 4 for s in STRENGTHS}) for gain in (-9.0, 0.0))
    found = judge([harmful], 4)
    assert found.word == "overbaked" and found.strength is None and found.usable is None
    assert harmful.top() == (0, 0)
    assert judge([idle], 4).word == "underbaked"


def test_usable_strengths_reach_nine_tenths_of_the_best():
    """0.2 - 0.2 (s - 0.8)^2 >= 0.18 from 0.8 - 0.316 to 0.8 + 0.316, a little less between the points."""
    low, high = checkpoint("a", 0.8).usable()
    assert low == pytest.approx(0.5, abs=0.051) and high == pytest.approx(1.1, abs=0.051)
    assert checkpoint("a", 0.8, height=-0.1).usable() is None


def test_the_best_is_what_gains_most_and_of_equals_the_last():
    found = judge(
        [checkpoint("early", 1.0, 0.2, 1), checkpoint("right", 0.95, 0.199, 2), checkpoint("late", 0.6, 0.19, 3)], 4
    )
    assert found.best == "right" and found.strength == 0.95
    assert any("right" in one.text for one in found.reasons)


def test_a_checkpoint_that_learned_less_before_the_best_is_underbaked():
    early, later, best = (
        checkpoint(name, 0.9, 0.2, step, trained=interval([gain, gain]))
        for name, step, gain in (("early", 1, 0.2), ("later", 2, 0.31), ("best", 3, 0.4))
    )
    assert judge([early, later, best], 4).words == {"early": "underbaked", "later": "baked", "best": "baked"}
    harmful = checkpoint("early", 0.0, 0.0, 1, trained=interval([0.1, 0.1]))
    assert judge([harmful, best], 4).words["early"] == "overbaked", "it gains nothing at any strength"


def test_drawings_that_hardly_moved_are_underbaked_and_one_strength_proves_nothing():
    def drawn(*styles: float) -> Measured:
        return with_drawn(checkpoint("a", 0.9), {0.5 + n / 2: Drawn(style=one) for n, one in enumerate(styles)})

    found = judge([drawn(0.1, 0.3)], 4)
    assert found.word == "underbaked" and any("30% of the way" in one.text for one in found.reasons)
    assert judge([drawn(0.1, 0.4)], 4).word == "baked"
    assert judge([drawn(0.1)], 4).word == "baked"


def test_a_checkpoint_that_did_not_draw_is_taken_to_lie_between_those_that_did():
    def at(step: int, style: float | None) -> Measured:
        drawn = {} if style is None else {0.5: Drawn(style=style), 1.0: Drawn(style=0.0)}
        return checkpoint(str(step), 0.9, step=step, drawn=drawn)

    found = judge([at(10, 0.1), at(20, None), at(30, 0.5), at(40, None)], 4)
    assert found.words == {"10": "underbaked", "20": "underbaked", "30": "baked", "40": "baked"}


def test_copies_are_overbaked_whatever_they_gain_and_bound_the_strength():
    one = with_drawn(checkpoint("a", 1.0), {0.6: Drawn(copied=0.0), 1.0: Drawn(copied=COPYING)})
    found = judge([one], 4)
    assert found.word == "overbaked" and found.usable and found.usable[1] < 1.0
    assert any("copy a picture" in reason.text for reason in found.reasons)


def test_no_numbers_are_overbaked_and_never_the_best():
    broken = Measured("b", 2, {s: [math.nan] * 4 for s in STRENGTHS})
    found = judge([checkpoint("a", 1.0), broken], 4)
    assert found.word == "overbaked" and found.best == "a"
    alone = judge([broken], 4)
    assert alone.word == "overbaked" and alone.strength is None and alone.usable is None


def test_without_held_out_pictures_nothing_is_called_baked():
    found = judge([checkpoint("a", 1.0)], heldout=0)
    assert found.word == UNSURE and found.usable is None
    assert "no held-out pictures" in found.reasons[0].text
    assert judge([checkpoint("a", 1.4)], heldout=0).word == "underbaked"


def test_one_held_out_picture_is_judged_without_an_interval():
    found = judge([Measured("a", 1, {s: [0.2 - (s - 0.9) ** 2] for s in STRENGTHS})], heldout=1)
    assert found.word == "baked"


def test_every_reason_cites_evidence_that_there_is():
    gap = interval([0.2, 0.2, 0.2])
    one = checkpoint("a", 0.4, gap=gap, trained=interval([0.3, 0.3]))
    cases = [judge([checkpoint("x", 1.0), one], 4), judge([checkpoint("x", 1.4)], 0), judge([one], 4)]
    cited = {row for case in cases for reason in (*case.reasons, *case.advice) for row in reason.evidence}
    assert cited and cited <= set(evidence())
    assert all(case.advice for case in cases)
