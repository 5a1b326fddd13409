"""Grids show every picture whole, under its own titles."""

import numpy as np
import pytest
from PIL import Image

from lorakiln.base.errors import UserError
from lorakiln.sample.grid import GAP, PAPER, grid, label, save_png

COLOURS = [(200, 10, 20), (10, 150, 30), (20, 30, 220), (90, 90, 0)]


def pictures(width=48, height=32):
    return [Image.new("RGB", (width, height), colour) for colour in COLOURS]


def where(sheet, colour):
    """(left, top, width, height) of the pixels of one colour."""
    ys, xs = np.nonzero((np.asarray(sheet) == colour).all(-1))
    assert len(xs) == (np.ptp(xs) + 1) * (np.ptp(ys) + 1)  # a full rectangle
    return xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1


def test_pictures_keep_their_pixels_and_their_places():
    a, b, c, d = pictures()
    sheet = grid([[a, b], [c, d]])
    assert sheet.size == (2 * 48 + 3 * GAP, 2 * 32 + 3 * GAP)
    expected = [(GAP + x * (48 + GAP), GAP + y * (32 + GAP), 48, 32) for y in (0, 1) for x in (0, 1)]
    assert [where(sheet, colour) for colour in COLOURS] == expected


def test_titles_take_room_and_leave_ink_beside_the_pictures():
    a, b, c, d = pictures()
    sheet = grid([[a, b], [c, d]], ["before", "after"], ["a fox", "a boat"], "title")
    left, top, width, height = where(sheet, COLOURS[0])
    assert (width, height) == (48, 32) and left > 48 and top > 30
    ink = (np.asarray(sheet) != PAPER).any(-1)
    assert ink[top : top + height, :left].any()  # the row's title
    assert ink[:top, left : left + width].any()  # the column's
    assert ink[: 2 * GAP, :left].any()  # the whole's


def test_sizes_may_differ_and_a_row_may_be_short():
    small, wide = Image.new("RGB", (16, 16), COLOURS[0]), Image.new("RGB", (64, 32), COLOURS[1])
    tall = Image.new("RGB", (16, 48), COLOURS[2])
    sheet = grid([[small, tall], [wide]])
    assert where(sheet, COLOURS[0]) == (GAP + 24, GAP + 16, 16, 16)  # in the middle of its cell
    assert where(sheet, COLOURS[1])[2:] == (64, 32)


def test_a_long_title_is_wrapped_into_its_width_and_cut_after_four_lines():
    one, four, many = (label(text, 100, 12) for text in ("word", "word " * 20, "word " * 200))
    assert one.width == four.width == many.width == 100
    assert one.height < four.height == many.height


def test_a_grid_that_cannot_be_is_refused():
    with pytest.raises(UserError, match="at least one picture"):
        grid([])
    with pytest.raises(UserError, match="1 row and 0 column titles for 2 x 1"):
        grid([[pictures()[0]], [pictures()[1]]], ["only one"])


def test_a_png_says_how_it_was_made(tmp_path):
    save_png(pictures()[0], tmp_path / "a" / "b.png", {"seed": "7", "prompt": "狐 fox"})
    with Image.open(tmp_path / "a" / "b.png") as image:
        assert dict(image.text) == {"prompt": "狐 fox", "seed": "7"}
        assert list(image.text) == ["prompt", "seed"]
        assert image.getpixel((0, 0)) == COLOURS[0]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.png"]
