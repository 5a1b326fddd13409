"""Looking copies up: found wherever they were cut from, without comparing everything with everything."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from lorakiln.curate import candidates, views
from lorakiln.curate.measure import fields
from tests.curate.pictures import scene


def arrays(pictures):
    return np.stack([np.frombuffer(fields(picture), np.uint8).reshape(2, 32, 32) for picture in pictures])


def pairs(found):
    return {frozenset(pair) for pair in zip(found.part_of.tolist(), found.whole.tolist(), strict=True)}


def test_the_views_of_a_picture_are_its_crops():
    picture = scene(1, 320)
    view = views.VIEWS.index((4, 8))  # rows and columns of an 80 % crop
    (top, bottom), (left, right) = views.INTERVALS[4], views.INTERVALS[8]
    part = picture.crop(tuple(round(320 * edge) for edge in (left, top, right, bottom)))
    seen = views.spectra(arrays([picture])[:, 0])[0, view]
    whole = views.spectra(arrays([part])[:, 0])[0, 0]
    assert seen @ whole > 0.99
    assert views.spectra(arrays([picture])[:, 0])[0, 0] @ whole < 0.95


def test_a_mirror_image_has_the_same_spectrum_but_for_signs():
    picture = scene(2)
    one, other = views.spectra(arrays([picture, ImageOps.mirror(picture)])[:, 0])[:, 0]
    assert np.allclose(one * views.MIRROR, other, atol=0.02)


def test_copies_are_found_among_many_and_strangers_are_few():
    many = [scene(seed, 96) for seed in range(300)]
    stored = io.BytesIO()
    many[7].save(stored, "JPEG", quality=40)
    crops = [many[at].crop((10, 12, 87, 89)) for at in (20, 21, 22, 23)]
    found = candidates.find(arrays([*many, Image.open(stored), ImageOps.mirror(many[9]), *crops]))
    expected = {frozenset(pair) for pair in [(7, 300), (9, 301), (20, 302), (21, 303), (22, 304), (23, 305)]}
    assert expected <= pairs(found)
    assert len(found.whole) < 1000  # of 46,665 pairs
    at = [set(pair) for pair in zip(found.part_of.tolist(), found.whole.tolist(), strict=True)].index({9, 301})
    assert found.mirrored[at]


def test_the_same_pictures_give_the_same_candidates():
    given = arrays([scene(seed % 20, 96) for seed in range(40)])
    one, other = candidates.find(given), candidates.find(given)
    assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("part_of", "whole", "view"))


def test_plain_pictures_are_like_nothing():
    given = arrays([Image.new("RGB", (64, 64), colour) for colour in ("white", "black", "red")] + [scene(1)])
    assert len(candidates.find(given).whole) == 0


@pytest.mark.parametrize("count", [0, 1, 2])
def test_tiny_sets_work(count):
    if count:
        assert len(candidates.find(arrays([scene(seed) for seed in range(count)])).whole) == 0


@pytest.mark.slow
def test_the_work_grows_with_the_set_and_not_with_its_square():
    rng = np.random.default_rng(0)

    def met(count):
        coarse = rng.integers(0, 256, (count, 2, 6, 6), dtype=np.uint8)
        given = np.stack([[np.asarray(Image.fromarray(layer).resize((32, 32), 3)) for layer in one] for one in coarse])
        tables = candidates._build(given[:, 0])
        sizes = np.concatenate(tables.sizes)
        return float((sizes.astype(float) ** 2).sum() / sizes.sum())  # entries that a look-up meets

    assert met(4000) < 2.5 * met(500)
