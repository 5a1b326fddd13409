"""The word, the best checkpoint and its strengths, from measures written by hand."""

import math
from dataclasses import replace

import pytest

from lorakiln.advise.evidence import evidence
from lorakiln.judge.interval import interval
from lorakiln.judge.verdict import COPYING, STRENGTHS, UNSURE, Drawn, Measured, judge, with_drawn


def checkpoint(name: str, top: float, height: float = 0.2, step: int = 1, **known) -> Measured:
    """One whose gain is a parabola over strengths, on four held-out pictures."""
    curve = {s: [height - 0.2 * (s - top) ** 2 + n / 1000 for n in (-1, 0, 0, 1)] for s in STRENGTHS}
    return Measured(name, step, curve, **known)


def drawn(name: str, *styles: float, step: int = 1, copied: float = 0.0, **known) -> Measured:
    """One that drew at 0.4, 0.7, 1 and 1.4; its gain, best at 0.35 but never a loss, has no say."""
    shown = {s: Drawn(copied, style) for s, style in zip((0.4, 0.7, 1.0, 1.4), styles, strict=False)}
    return with_drawn(checkpoint(name, 0.35, 0.3, step=step, **known), shown)


@pytest.mark.parametrize(
    ("top", "height", "expected"),
    [
        (1.4, 0.2, "underbaked"),
        (1.0, 0.2, "baked"),
        (0.86, 0.1, "baked"),
        (0.6, 0.198, "slightly overbaked"),
        (0.6, 0.15, "overbaked"),
        (0.2, 0.2, "overbaked"),
    ],
)
def test_without_drawings_the_word_follows_from_the_strengths_that_suit_held_out_pictures(top, height, expected):
    found = judge([checkpoint("reference", 1.0, 0.2), checkpoint("last", top, height)], heldout=4)
    assert found.word == found.words["last"] == expected and found.by == "gain"


@pytest.mark.parametrize(
    ("styles", "expected"),
    [
        ((0.1, 0.3, 0.6, 0.9), "underbaked"),
        ((0.3, 0.6, 0.9, 0.7), "baked"),
        ((0.7, 0.9, 0.7, 0.2), "slightly overbaked"),
        ((0.7, 0.8, 0.6, 0.2), "overbaked"),  # the other reaches 0.9
        ((0.9, 0.6, 0.3, 0.1), "overbaked"),
        ((0.05, 0.1, 0.2, 0.1), "overbaked"),  # next to nothing after something
    ],
)
def test_the_word_follows_from_the_strengths_whose_drawings_are_most_like_the_set(styles, expected):
    found = judge([drawn("reference", 0.3, 0.6, 0.9, 0.7), drawn("last", *styles, step=2)], heldout=4)
    assert found.word == found.words["last"] == expected and found.by == "style"


def test_drawings_at_two_strengths_leave_it_to_the_losses():
    assert judge([drawn("a", 0.3, 0.6)], 4).by == "gain"


def test_copies_are_worth_less():
    """Half of the way is lost by what is all copies: 0.9 - 0.5 x 0.2 falls behind 0.85."""
    found = judge([drawn("own", 0.3, 0.6, 0.85, 0.7), drawn("copying", 0.3, 0.6, 0.9, 0.7, step=2, copied=0.2)], 4)
    assert found.best == "own" and found.tops["copying"][1] < found.tops["own"][1]


def test_what_held_out_pictures_lose_is_off():
    """The same drawings; at 1 the loss of held-out pictures is 2.2 times the base's, which is 0.3 off; at 0.7 alike."""
    fine = drawn("a", 0.4, 0.8, 0.9, 0.8)
    strained = replace(fine, curve={0.7: [0.0, 0.0], 1.0: [-1.2, -1.2], 1.4: [-2.0, -2.0]})
    assert judge([fine], 4).word == "baked"
    found = judge([strained], 4)
    assert found.word == "slightly overbaked" and found.tops["a"] == (
        pytest.approx(0.72, abs=0.02),
        pytest.approx(0.78, abs=0.03),
    )


def test_best_strengths_lie_in_the_middle_of_those_that_are_as_good():
    found = judge([checkpoint("a", 0.93)], 4)
    assert found.tops["a"] == (pytest.approx(0.93, abs=0.03), pytest.approx(0.2, abs=0.003))
    flat = judge([drawn("a", 0.5, 0.9, 0.85, 0.9)], 4)
    assert flat.strength == pytest.approx(1.02, abs=0.02), "from 0.64 to 1.4"
    assert judge([Measured("a", 1, {1.0: [0.1]})], 4).strength == pytest.approx(0.975, abs=0.011), "1, less 0.005"


def test_strengths_to_use_never_bridge_a_valley():
    found = judge([drawn("a", 0.5, 0.2, 0.3, 0.6)], 4)
    assert found.strength == 1.2 and found.usable == (1.2, 1.2)


@pytest.mark.parametrize("styles", [(0.25, 0.25, 0.25, 0.3), (0.03, -0.01, -0.02, -0.03), (0.1, 0.4, 0.9, 0.5)])
def test_the_strength_is_one_of_those_to_use(styles):
    found = judge([drawn("a", *styles)], 4)
    assert found.usable[0] <= found.strength <= found.usable[1]


def test_strengths_whose_drawings_copy_are_worth_less_and_not_to_be_used():
    def copying(*shares: float) -> Measured:
        shown = {s: Drawn(share, 0.9) for s, share in zip((0.4, 0.7, 1.0, 1.4), shares, strict=True)}
        return with_drawn(checkpoint("a", 1.0), shown)

    found = judge([copying(0.0, 0.0, 0.3, 0.4)], 4)
    assert found.word == "slightly overbaked" and found.usable[0] < 0.7 < found.usable[1] <= 0.95
    assert found.usable[0] <= found.strength <= found.usable[1]
    assert judge([copying(0.0, 0.5, 0.5, 0.5)], 4).word == "overbaked"
    unheld = judge([copying(0.0, 0.0, 0.3, 0.4)], 0)
    assert unheld.word == "overbaked" and unheld.strength <= 0.95
    assert any("30% of a's drawings at 1 copy" in reason.text for reason in unheld.reasons)


def test_a_lora_that_only_harms_is_overbaked_and_one_that_does_nothing_underbaked():
    harmful, idle = (Measured("a", 1, {s: [gain * s] * 4 for s in STRENGTHS}) for gain in (-9.0, 0.0))
    found = judge([harmful], 4)
    assert found.word == "overbaked" and found.strength is None and found.usable is None
    assert judge([idle], 4).word == "underbaked"
    hardly = Measured("a", 1, {s: [-0.0005 * s] * 4 for s in STRENGTHS})
    assert judge([hardly], 4).word == "underbaked", "a gain of a thousandth, or a loss, is nothing"


def test_usable_strengths_reach_nine_tenths_of_the_best():
    """0.2 - 0.2 (s - 0.8)^2 >= 0.18 from 0.8 - 0.316 to 0.8 + 0.316, a little less between the points."""
    low, high = judge([checkpoint("a", 0.8)], 4).usable
    assert low == pytest.approx(0.5, abs=0.051) and high == pytest.approx(1.1, abs=0.051)
    assert judge([checkpoint("a", 0.8, height=-0.1)], 4).usable is None
    assert judge([drawn("a", 0.1, 0.2, 0.3, 0.5)], 4).usable == (1.2, 1.2), "no more than people use"


def test_the_best_is_worth_most_and_by_gain_the_last_of_equals():
    found = judge(
        [checkpoint("early", 1.0, 0.2, 1), checkpoint("right", 0.95, 0.199, 2), checkpoint("late", 0.6, 0.19, 3)], 4
    )
    assert found.best == "right" and found.strength == pytest.approx(0.95, abs=0.03)
    assert any("right" in one.text for one in found.reasons)
    by_style = [drawn("early", 0.3, 0.6, 0.9, 0.8), drawn("late", 0.3, 0.6, 0.87, 0.8, step=2)]
    assert judge(by_style, 4).best == "early"


def test_a_checkpoint_that_did_not_draw_is_taken_to_lie_between_those_that_did():
    def at_step(step: int, *styles: float) -> Measured:
        return drawn(str(step), *styles, step=step)

    found = judge([at_step(10, 0.1, 0.2, 0.4, 0.3), at_step(20), at_step(30, 0.3, 0.6, 0.8, 0.7), at_step(40)], 4)
    assert found.tops["20"][1] == pytest.approx(0.6, abs=0.05) and found.tops["40"] == found.tops["30"]
    assert found.words == {"10": "underbaked", "20": "baked", "30": "baked", "40": "baked"}


def test_before_the_first_that_drew_it_is_as_far_as_it_had_learned():
    """0.1 of 0.4 on trained pictures is a quarter of the way; by steps alone it would be half."""
    early = checkpoint("early", 1.0, step=10, trained=interval([0.1, 0.1]))
    later = drawn("later", 0.3, 0.6, 0.8, 0.7, step=20, trained=interval([0.4, 0.4]))
    assert judge([early, later], 4).tops["early"][1] == pytest.approx(0.19, abs=0.02)
    unknown = checkpoint("early", 1.0, step=10)
    assert judge([unknown, later], 4).tops["early"][1] == pytest.approx(0.37, abs=0.03)


def test_by_gain_copies_are_overbaked_and_bound_the_strength():
    one = with_drawn(checkpoint("a", 1.0), {0.6: Drawn(copied=0.0), 1.0: Drawn(copied=COPYING)})
    found = judge([one], 4)
    assert found.word == "overbaked" and found.usable[1] == found.strength == 0.95
    assert any("copy a picture" in reason.text for reason in found.reasons)


def test_no_numbers_are_overbaked_and_never_the_best():
    broken = Measured("b", 2, {s: [math.nan] * 4 for s in STRENGTHS})
    found = judge([checkpoint("a", 1.0), broken], 4)
    assert found.word == "overbaked" and found.best == "a"
    alone = judge([broken], 4)
    assert alone.word == "overbaked" and alone.strength is None and alone.usable is None


def test_a_checkpoint_of_no_numbers_says_nothing_of_its_neighbours():
    lost = {s: [math.nan] * 4 for s in STRENGTHS}
    good, undrawn = drawn("good", 0.3, 0.6, 0.8, 0.7), drawn("undrawn", step=2)
    grey = replace(drawn("grey", 0.9, 0.95, 0.95, 0.9, step=3), curve=lost)
    found = judge([good, undrawn, grey], 4)
    assert found.words == {"good": "baked", "undrawn": "baked", "grey": "overbaked"} and found.best == "good"


def test_strengths_of_no_numbers_are_worth_nothing():
    """NaN from 1 on."""
    partly = {s: [0.2 * s if s < 1 else math.nan] * 4 for s in STRENGTHS}
    found = judge([Measured("a", 1, partly)], 4)
    assert found.strength == pytest.approx(0.85, abs=0.03)
    assert judge([replace(drawn("a", 0.3, 0.6, 0.9, 0.9), curve=partly)], 4).strength < 0.8
    assert not any("nan" in one.text for one in found.reasons)


def test_of_equals_the_one_that_does_not_copy_is_to_be_used():
    one, other = drawn("clean", 0.3, 0.6, 0.85, 0.7), drawn("copies", 0.3, 0.6, 0.86, 0.7, step=2)
    copying = replace(other, drawn=dict(other.drawn) | {1.4: Drawn(COPYING, 0.7)})
    found = judge([one, copying], 4)
    assert found.tops["copies"][1] >= found.tops["clean"][1] - 0.01 and found.best == "clean"


def test_what_is_worth_nothing_is_never_to_be_used():
    hardly, harmful = (
        Measured(name, n, {1.0: [gain] * 4}) for n, (name, gain) in enumerate((("a", 0.003), ("b", -3.0)))
    )
    found = judge([hardly, harmful], 4)
    assert found.best == "a" and found.strength is not None


def test_where_nothing_is_worth_anything_nothing_is_recommended():
    for curve in ({s: [math.nan] * 4 for s in STRENGTHS}, {s: [-3.0 * s] * 4 for s in STRENGTHS}):
        found = judge([Measured(name, n, curve) for n, name in enumerate("ab")], 4)
        told = [one.text for one in (*found.reasons, *found.advice)]
        assert found.strength is None and any("lower optim.lr" in text for text in told)
        assert not any(text for text in told if "to use" in text or "draws most" in text or "stop at" in text)


def test_a_checkpoint_that_did_not_draw_is_not_taken_for_one_that_copies_nothing():
    def copying(name: str, step: int) -> Measured:
        shown = {0.4: Drawn(0.0, 0.5), 0.7: Drawn(0.1, 0.8), 1.0: Drawn(0.3, 0.95), 1.4: Drawn(0.4, 0.9)}
        return with_drawn(checkpoint(name, 1.0, step=step), shown)

    found = judge([copying("a", 1), checkpoint("between", 1.0, step=2), copying("b", 3)], 4)
    assert found.best in ("a", "b") and found.strength <= found.usable[1] <= 0.95


def test_without_held_out_pictures_nothing_is_called_baked():
    found = judge([checkpoint("a", 1.0)], heldout=0)
    assert found.word == UNSURE and found.usable is None
    assert "no held-out pictures" in found.reasons[0].text
    assert judge([checkpoint("a", 1.45)], heldout=0).word == "underbaked"
    assert judge([drawn("a", 0.3, 0.6, 0.9, 0.8)], heldout=0).word == UNSURE


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
