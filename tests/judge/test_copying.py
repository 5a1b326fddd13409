"""Copies are found through the VAE, mirrored, cropped and recoloured; other pictures of the same style are none."""

import random
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from lorakiln import families
from lorakiln.base.images import open_picture
from lorakiln.judge.copying import Gallery, copied_share
from lorakiln.runs.measuring import drawable

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
NAMES = ("banana", "bicycle", "bus", "crab", "fox", "frog", "house", "owl", "pizza", "rocket", "skull", "whale")


def small(folder: str, names=()) -> list[Image.Image]:
    paths = sorted((EXAMPLES / folder).glob("*.png"))
    return [open_picture(path).resize((128, 128)) for path in paths if not names or path.stem in names]


@pytest.fixture(scope="module")
def trained():
    return small("twemoji", NAMES)


@pytest.fixture(scope="module")
def gallery(trained):
    return Gallery(trained)


@pytest.fixture(scope="module")
def family():
    return families.load("starter")


@pytest.fixture(scope="module")
def redrawn(family, trained):
    """The training pictures as a model would draw them from memory: through the VAE, with its losses."""
    return drawable(family, trained)


def cropped(picture: Image.Image) -> Image.Image:
    return picture.crop((10, 4, 122, 116)).resize((128, 128))


CHANGES = {
    "as it was": lambda picture: picture,
    "mirrored": ImageOps.mirror,
    "cropped": cropped,
    "paler": lambda picture: ImageEnhance.Color(picture).enhance(0.5),
    "darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.7),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_picture_drawn_from_memory_is_found_and_named(gallery, redrawn, change):
    found = [gallery.nearest(CHANGES[change](picture)) for picture in redrawn]
    assert [one.index for one in found] == list(range(len(redrawn)))
    assert copied_share(found) >= 0.9


def test_thin_lines_that_the_vae_blurs_are_found_by_what_it_makes_of_them(family, trained):
    edges = (ImageOps.grayscale(one).filter(ImageFilter.FIND_EDGES) for one in trained)
    lines = [ImageOps.colorize(one.point(lambda value: min(255, 3 * value)), "#223e2c", "#ffecaa") for one in edges]
    drawn = drawable(family, lines)
    found = [Gallery(lines, drawn).nearest(cropped(one)) for one in drawn]
    assert copied_share(found) >= 0.9 and [one.index for one in found] == list(range(len(drawn)))
    assert copied_share([Gallery(lines).nearest(cropped(one)) for one in drawn]) < copied_share(found)


def test_other_pictures_of_the_style_are_no_copies(gallery):
    found = [gallery.nearest(picture) for picture in small("twemoji-heldout")]
    assert copied_share(found) == 0


def test_a_picture_that_the_set_holds_twice_is_still_copied(trained, redrawn):
    assert Gallery([*trained, *trained]).nearest(redrawn[0]).copied


def test_a_set_of_one_picture(trained, redrawn):
    alone = Gallery(trained[:1])
    assert alone.nearest(redrawn[0]).copied and not alone.nearest(trained[3]).copied


def test_no_pictures_no_copies(trained):
    nothing = Gallery([]).nearest(trained[0])
    assert nothing.index == -1 and not nothing.copied
    assert copied_share([]) == 0


def test_an_empty_drawing_is_a_copy_of_nothing(gallery):
    grey = Image.new("RGB", (128, 128), "grey")
    assert not gallery.nearest(grey).copied
    rng = random.Random(0)
    dots = grey.copy()
    for _ in range(40):
        ImageDraw.Draw(dots).point((rng.randrange(128), rng.randrange(128)), "white")
    assert not gallery.nearest(dots).copied
