"""How pictures are drawn, seen by the base: distances worked by hand, and features of pictures drawn alike or not."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lorakiln.judge import look
from tests.tiny import tiny_family


def column(*values: float) -> np.ndarray:
    return np.array(values)[:, None]


def test_the_energy_distance_of_two_pairs():
    """Between: (1 + 3 + 1 + 1) / 4, twice; within: 2 and 2."""
    assert look.energy_distance(column(0, 2), column(1, 3)) == pytest.approx(2 * 1.5 - 2 - 2)
    assert look.energy_distance(column(0, 0), column(3, 3)) == pytest.approx(6)
    with pytest.raises(ValueError, match="two pictures"):
        look.energy_distance(column(0), column(1, 3))


def test_similarity_goes_from_the_bases_drawings_to_the_set():
    """Moved by 2 the pictures lie 2 apart, by 4 they lie 4; within each sample 4/3: 1 - (4 - 8/3) / (8 - 8/3)."""
    own, base = column(-1, 1, -1, 1), column(3, 5, 3, 5)
    assert look.similarity(base, base, own) == 0
    assert look.similarity(column(1, 3, 1, 3), base, own) == pytest.approx(0.75)
    assert look.similarity(own, base, own) > 0.99
    assert look.similarity(column(5, 7, 5, 7), base, own) < 0
    assert look.similarity(own[:1], base, own) is None and look.similarity(own, base, own[:0]) is None


def disc(colour: str, outline: str | None, at: int) -> Image.Image:
    picture = Image.new("RGB", (64, 64), colour)
    ImageDraw.Draw(picture).ellipse([at, at, at + 32, at + 32], fill="gold", outline=outline, width=4)
    return picture


def test_features_tell_ways_of_drawing_apart_and_a_batch_changes_nothing():
    family = tiny_family()
    plain, lined = ([disc("navy", line, at) for at in range(0, 30, 3)] for line in (None, "black"))
    plain_NF, lined_NF = look.features(family, plain), look.features(family, lined)
    assert plain_NF.shape == lined_NF.shape and len(plain_NF) == 10
    assert look.features(family, plain[3:4])[0] == pytest.approx(plain_NF[3], abs=1e-4)
    odd, even = plain_NF[::2], plain_NF[1::2]
    assert look.similarity(odd, lined_NF, even) > 0.8, "the same way of drawing, beside another"
    assert look.features(family, []).shape[0] == 0
