"""Measures of single pictures, on pictures whose answer is known."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from lorakiln.curate import quality
from lorakiln.curate.advice import faults
from lorakiln.curate.measure import read
from tests.curate.pictures import figure, scene


def grey(picture):
    return np.asarray(picture.convert("L"))


@pytest.mark.parametrize("radius", [1, 2, 4])
def test_sharpness_is_about_one_over_the_edge_width(radius):
    edge = Image.new("L", (200, 200), 40)
    edge.paste(220, (100, 0, 200, 200))
    blurred = quality.sharpness(np.asarray(edge.filter(ImageFilter.GaussianBlur(radius))))
    assert quality.sharpness(np.asarray(edge)) == 1
    # at the steepest place of a Gaussian edge the turn is a fraction of the step that falls as 1/radius
    assert 0.2 / radius < blurred < 1.2 / radius


def test_a_blurred_picture_is_found_and_a_sharp_or_plain_one_is_not():
    for seed in range(5):
        assert quality.sharpness(grey(scene(seed, 384))) > 0.4
        assert quality.sharpness(grey(scene(seed, 384).filter(ImageFilter.GaussianBlur(5)))) < 0.3
    assert quality.sharpness(grey(figure(side=384))) > 0.4
    assert quality.sharpness(np.full((100, 100), 7, np.uint8)) == 1


@pytest.mark.parametrize("factor", [2, 3])
def test_detail_sees_an_enlargement(factor):
    for seed in range(4):
        picture = scene(seed, 200)
        assert quality.detail(grey(picture)) > 0.9
        large = picture.resize((200 * factor, 200 * factor), Image.Resampling.BICUBIC)
        assert quality.detail(grey(large)) < 1.35 / factor


@pytest.mark.parametrize("set_to", [30, 50, 75, 90, 95])
def test_jpeg_quality_is_what_the_encoder_was_told(set_to):
    stored = io.BytesIO()
    scene(1).save(stored, "JPEG", quality=set_to)
    with Image.open(stored) as image:
        assert quality.jpeg_quality(image.quantization) == pytest.approx(set_to, abs=1)
        assert quality.jpeg_quality({1: image.quantization[0]}) == quality.jpeg_quality(image.quantization)


def test_bars_are_measured_and_a_plain_ground_is_none():
    picture = scene(2, 200)
    assert quality.border(grey(picture)) == (0, 0, 0, 0)
    assert quality.border(grey(ImageOps.expand(picture, (0, 25, 0, 30), "black"))) == (0, 25, 0, 30)
    assert quality.border(grey(ImageOps.expand(picture, 12, "white"))) == (12, 12, 12, 12)
    assert quality.border(grey(figure(side=200))) == (0, 0, 0, 0)


@pytest.mark.parametrize("bars", [(0, 40, 0, 0), (30, 0, 0, 0), (0, 0, 25, 0), (25, 30, 0, 0), (20, 0, 0, 12)])
@pytest.mark.parametrize("ground", ["black", "white"])
def test_a_black_or_white_bar_may_lie_on_any_side(bars, ground):
    assert quality.border(grey(ImageOps.expand(scene(2, 200), bars, ground))) == bars


def test_a_plain_sky_on_one_side_is_no_bar():
    assert quality.border(grey(ImageOps.expand(scene(2, 200), (0, 40, 0, 0), "#9fc8e8"))) == (0, 0, 0, 0)
    assert quality.border(grey(figure(side=200, ground="black"))) == (0, 0, 0, 0)


def test_a_line_of_text_near_the_edge_is_noticed():
    for seed in range(4):
        picture = scene(seed, 512)
        assert quality.text_band(grey(picture)) < 0.3
        pen = ImageDraw.Draw(picture)
        pen.text((60, 480), "(c) 2024 An Artist of Some Name", "white", ImageFont.load_default(size=20))
        assert quality.text_band(grey(picture)) > 0.9


def test_the_palette_of_a_flat_picture():
    picture = Image.new("RGB", (100, 100), "white")
    picture.paste("red", (0, 0, 100, 20))
    assert quality.palette(np.asarray(picture)) == (0.8, 2)


def fault_names(tmp_path, picture, resolution=300, lost=0.0, **save):
    path = tmp_path / ("a.jpg" if save else "a.png")
    picture.save(path, **save)
    return {fault for _, fault, _ in faults(read(path, path.name)[0], resolution, lost)}


def test_each_fault_has_its_name(tmp_path):
    good = scene(1, 300)
    assert fault_names(tmp_path, good) == set()
    assert "blurred" in fault_names(tmp_path, good.filter(ImageFilter.GaussianBlur(6)))
    assert "small" in fault_names(tmp_path, good.resize((100, 100)))
    assert "enlarge" in fault_names(tmp_path, good.resize((200, 200)))
    assert "empty" in fault_names(tmp_path, Image.new("RGB", (256, 256), "white"))
    assert "border" in fault_names(tmp_path, ImageOps.expand(good, 20, "black"))
    assert "cropped" in fault_names(tmp_path, good, lost=0.2)
    assert "compressed" in fault_names(tmp_path, good, quality=30)
    half = good.convert("RGBA")
    half.putalpha(Image.new("L", half.size, 0))
    assert "transparent" in fault_names(tmp_path, half)
