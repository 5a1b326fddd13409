"""Fidelity, prompt following, drift and diversity on chances written by hand."""

import numpy as np
import pytest
from PIL import Image

from lorakiln.judge import likeness
from lorakiln.tag.tagger import Guess, Tagged

TAGS = ("cat", "dog", "hat")


class Known:
    """A tagger that says what the pixel in the corner tells it."""

    vocabulary, batch = TAGS, 2

    def tags(self, pictures):
        return [Tagged(tuple(Guess(name, value / 255) for name, value in zip(TAGS, one.getpixel((0, 0)), strict=True)))
                for one in pictures]  # fmt: skip


def chances(*rows):
    return np.array(rows, np.float32)


CAT, DOG = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]


def test_features_are_the_chances_in_the_vocabularys_order():
    pictures = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 255, 51), (0, 0, 0))]
    assert likeness.features(Known(), pictures) == pytest.approx(chances(CAT, [0, 1, 0.2], [0, 0, 0]))
    assert likeness.features(Known(), []).shape == (0, 3)


def test_the_distance_of_opposites_is_one():
    assert likeness.distance(chances([1, 0]), chances([0, 1]))[0] == pytest.approx(1)
    assert likeness.distance(chances(CAT), chances(CAT))[0] == 0
    assert likeness.distance(chances(CAT), chances(DOG))[0] == pytest.approx((2 / 3) ** 0.5)


def test_fidelity_is_how_much_of_the_way_was_gone():
    assert likeness.fidelity(chances(CAT), chances(DOG), chances(CAT)) == 1
    assert likeness.fidelity(chances(DOG), chances(DOG), chances(CAT)) == 0
    assert likeness.fidelity(chances(DOG), chances(CAT), chances(CAT)) < 0
    assert likeness.fidelity(chances(*[CAT] * 0).reshape(0, 3), chances(DOG), chances(CAT)) is None


def test_following_counts_the_tags_that_the_tagger_knows():
    drawn = chances([0.9, 0.1, 0.2], [0.1, 0.9, 0.9])
    assert likeness.following(drawn, ["cat, hat", "zzz, dog, hat"], TAGS) == 0.75
    assert likeness.following(drawn[:1], ["zzz"], TAGS) is None


def test_drift_is_counted_in_seeds():
    assert likeness.drift(chances(CAT), chances(CAT), chances(DOG)) == 0
    assert likeness.drift(chances(DOG), chances(CAT), chances(DOG)) == 1
    assert likeness.drift(chances().reshape(0, 3), chances().reshape(0, 3), chances().reshape(0, 3)) is None


def test_identical_samples_have_no_diversity():
    varied = [chances(CAT, DOG)]
    assert likeness.diversity([chances(CAT, CAT)], varied) == 0
    assert likeness.diversity(varied, varied) == 1
    assert likeness.diversity([chances(CAT)], varied) is None, "one seed tells nothing"
