"""What the verdict is measured against, by cases worked by hand."""

import numpy as np
import pytest

from benchmarks import judge_truth as truth
from lorakiln.judge import strengths


def pictures(seed: int, count: int = 24) -> np.ndarray:
    """Squares of two colours, 32 pixels a side."""
    rng = np.random.default_rng(seed)
    made = np.empty((count, 32, 32, 3), np.uint8)
    for one in made:
        one[:] = rng.integers(0, 256, 3)
        at = rng.integers(0, 16, 2)
        one[at[0] : at[0] + 16, at[1] : at[1] + 16] = rng.integers(0, 256, 3)
    return made


def test_pictures_of_the_style_are_similar_and_others_are_not():
    one, same, dark = (truth.features(each) for each in (pictures(1, 60), pictures(2, 60), pictures(3, 60) // 3))
    one, same, dark = (each / truth.scale(dark, one) for each in (one, same, dark))
    assert truth.similarity(dark, dark, one) == 0
    assert truth.similarity(same, dark, one) > 0.95


def test_a_style_of_one_colour_is_nearly_there_when_it_is_nearly_that_colour():
    """Where the set hardly varies, a small miss is still a small miss."""
    blue, nearly, base = np.empty((3, 20, 32, 32, 3), np.uint8)
    blue[:], nearly[:], base[:] = (20, 50, 120), (24, 44, 140), pictures(6, 20)
    scale_F = truth.scale(truth.features(base), truth.features(blue))
    drawn_NF, base_NF, unseen_NF = (truth.features(each) / scale_F for each in (nearly, base, blue))
    assert truth.similarity(drawn_NF, base_NF, unseen_NF) > 0.6


def test_features_of_half_black_and_half_white_by_hand():
    """Means 0.5, deviations 0.5; half black, half white; one edge of full strength in 31 columns; flat but for that."""
    half = np.zeros((1, 32, 32, 3), np.uint8)
    half[:, :, 16:] = 255
    moments, colours, edges, _, slopes = np.split(truth.features(half)[0], np.cumsum(truth.GROUPS)[:-1])
    assert moments == pytest.approx([0.5] * 6)
    assert colours[[0, 26]] == pytest.approx([0.5**0.5] * 2) and colours[1:26] == pytest.approx([0] * 25)
    assert edges == pytest.approx([(30 / 31) ** 0.5, 0, 0, 0, 0, (1 / 31) ** 0.5])
    assert slopes == pytest.approx([(1 / 15) ** 0.5] * 3 + [0] * 3)


def test_a_colour_between_two_counts_for_both():
    """A quarter of full red lies half way from black to half red."""
    quarter = np.full((1, 16, 16, 3), 0, np.uint8)
    quarter[..., 0] = 64
    colours = truth.features(quarter)[0, 6:33]
    assert colours[[0, 9]] ** 2 == pytest.approx([1 - 128 / 255, 128 / 255], abs=1e-6)


def test_a_mirrored_and_darker_copy_is_a_copy():
    trained, unseen = pictures(4), pictures(5, 100)
    copies = (trained[:, :, ::-1] * 0.8).astype(np.uint8)
    within = truth.near(trained, unseen)
    assert truth.copied(copies, trained, within) == 1
    assert truth.copied(unseen, trained, within) <= truth.CHANCE


def test_drift_is_counted_in_seeds():
    base, other = np.zeros((3, 4)), np.full((3, 4), 2.0)
    assert truth.drift(base, base, other) == 0
    assert truth.drift(base + 1, base, other) == 0.5


def test_quality_takes_drift_and_copies_off():
    assert truth.quality(0.8, 1.4, 0.21) == pytest.approx(0.8 - 0.04 - 0.1)
    assert truth.quality(0.8, 1.0, 0.005) == 0.8  # another seed's drift and chance alone


def test_little_is_a_share_of_the_styles_best():
    assert truth.rule(0.6) == strengths.Rule(reach=truth.NOISE, little=pytest.approx(0.2))
