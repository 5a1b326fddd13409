"""Two pictures laid over each other: what is one picture, what is a near pose, what is another."""

import random

import pytest
from PIL import Image

from benchmarks.planted import CHANGES
from lorakiln.curate.compare import Looks, relate
from tests.curate.pictures import figure, scene


def relation(first: Image.Image, second: Image.Image, **guess):
    return relate(*(Looks(_thumbnail(picture)) for picture in (first, second)), **guess)


def _thumbnail(picture: Image.Image) -> Image.Image:
    small = picture.copy()
    small.thumbnail((160, 160))
    return small


@pytest.mark.parametrize("way", ["resized", "recoloured", "watermarked"])
@pytest.mark.parametrize("seed", range(6))
def test_a_changed_scene_is_a_copy(way, seed):
    picture = scene(seed)
    changed = CHANGES[way](picture, random.Random(seed))
    assert relation(picture, changed).kind == "copy"


@pytest.mark.parametrize("seed", range(4))
def test_a_mirrored_scene_is_a_copy_only_when_looked_at_mirrored(seed):
    picture = scene(seed)
    changed = CHANGES["mirrored"](picture, random.Random(0))
    assert relation(picture, changed, mirrored=True).kind == "copy"
    assert relation(picture, changed).kind != "copy"


@pytest.mark.parametrize("seed", range(6))
def test_a_crop_is_found_from_a_rough_guess_to_a_pixel(seed):
    picture = scene(seed, 320)
    part = picture.crop((40, 10, 296, 266))  # 80 % of each side
    found = relation(picture, part, box=(0.10, 0.05, 0.90, 0.85))
    assert found.kind == "copy" and found.cropped
    assert found.box == pytest.approx((0.125, 0.03125, 0.925, 0.83125), abs=0.006)


def test_two_scenes_differ():
    assert all(relation(scene(one), scene(one + 50)).kind == "different" for one in range(8))


TONES = ["#fcea2b", "#fadcbc", "#debb90", "#c19a65", "#a57939", "#6a462f"]


@pytest.mark.parametrize("ground", ["white", "#5caa58", "#121214"])
def test_skin_tones_are_near_poses_and_never_copies(ground):
    pictures = [figure(skin=tone, ground=ground) for tone in TONES]
    for at, one in enumerate(pictures):
        for other in pictures[:at]:
            assert relation(one, other).kind == "near"


@pytest.mark.parametrize("other", ["frown", "line", "none"])
def test_another_mouth_is_a_near_pose_though_it_is_a_low_wide_line(other):
    for mouth in {"smile", "line", "none"} - {other}:
        assert relation(figure(mouth=mouth), figure(mouth=other)).kind == "near"


@pytest.mark.parametrize("coat", ["#b53f3f", "#3fb56f", "#222222"])
def test_another_coat_is_a_near_pose(coat):
    assert relation(figure(), figure(coat=coat)).kind == "near"


def test_the_same_figure_on_another_ground_is_no_copy():
    assert relation(figure(ground="#5caa58"), figure(ground="#d63a38")).kind == "near"


def test_turning_every_hue_makes_a_copy_but_turning_one_does_not():
    picture = figure(ground="#9fc8e8")
    hue, strong, light = picture.convert("HSV").split()
    turned = Image.merge("HSV", (hue.point(lambda h: (h + 40) % 256), strong, light)).convert("RGB")
    found = relation(picture, turned)
    assert found.kind == "copy" and found.change
    assert relation(figure(), figure(skin="#2bfcea")).kind == "near"


def test_the_watermarked_one_is_named():
    picture = scene(3)
    marked = CHANGES["watermarked"](picture, random.Random(12))
    forwards, backwards = relation(picture, marked), relation(marked, picture)
    assert forwards.kind == backwards.kind == "copy"
    if forwards.marked or backwards.marked:  # a faint one is within what compression does
        assert (forwards.marked, backwards.marked) == (2, 1)


def test_strong_writing_is_seen_as_writing():
    from PIL import ImageDraw, ImageFont

    picture = scene(5)
    marked = picture.copy()
    ImageDraw.Draw(marked).text((20, 236), "(c) Some Artist 2024", "white", ImageFont.load_default(size=14))
    assert relation(picture, marked).marked == 2
    assert relation(marked, picture).marked == 1


@pytest.mark.parametrize("row", [20, 236])
def test_a_plain_line_is_no_writing(row):
    from PIL import ImageDraw

    picture = scene(5)
    lined = picture.copy()
    ImageDraw.Draw(lined).rectangle((60, row, 200, row + 5), "white")
    found = relation(picture, lined)
    assert found.kind == "near" and not found.marked
