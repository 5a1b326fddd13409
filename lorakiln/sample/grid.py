"""Pictures side by side with their titles, and PNG files that say how they were made."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from lorakiln.base.errors import UserError
from lorakiln.base.files import atomic

PAPER, INK = (250, 250, 248), (30, 30, 30)
GAP = 8  # pixels between cells


def grid(
    rows: Sequence[Sequence[Image.Image]],
    row_titles: Sequence[str] = (),
    column_titles: Sequence[str] = (),
    title: str = "",
) -> Image.Image:
    """One RGB picture of rows of pictures, with titles above the columns, left of the rows, and over the whole.

    A row or column is as wide as its largest cell, and smaller ones stand in its middle. UserError for an empty grid or
    titles that do not match the pictures in number.
    """
    columns = max((len(row) for row in rows), default=0)
    if not columns:
        raise UserError("a grid needs at least one picture")
    if len(row_titles) not in (0, len(rows)) or len(column_titles) not in (0, columns):
        raise UserError(f"{len(row_titles)} row and {len(column_titles)} column titles for {len(rows)} x {columns}")
    width = min(picture.width for row in rows for picture in row)
    size = max(11, min(24, width // 16))
    cells = [list(row) for row in rows]
    if row_titles:
        cells = [
            [label(text, max(72, width * 3 // 4), size), *row] for text, row in zip(row_titles, cells, strict=True)
        ]
    if column_titles:
        heads = [label(text, width, size) for text in column_titles]
        cells.insert(0, [label("", 1, size), *heads] if row_titles else heads)
    sheet = _laid_out(cells)
    if title:
        sheet = _laid_out([[label(title, sheet.width - 2 * GAP, size)], [sheet]])
    return sheet


def label(text: str, width: int, size: int) -> Image.Image:
    """Text as a picture `width` pixels wide: wrapped at words, a longer word cut, a fifth line and on left out."""
    font = ImageFont.load_default(size)
    lines: list[str] = []
    for word in text.split():
        while font.getlength(word) > width and len(word) > 1:
            word = word[:-1]
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    if len(lines) > 4:
        lines = [*lines[:3], f"{lines[3]} ..."]
    height = max(1, round(len(lines) * size * 1.3))
    picture = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(picture)
    for i, line in enumerate(lines):
        pen.text((0, round(i * size * 1.3)), line, INK, font)
    return picture


def _laid_out(cells: Sequence[Sequence[Image.Image]]) -> Image.Image:
    columns = max(len(row) for row in cells)
    widths = [max(row[i].width for row in cells if i < len(row)) for i in range(columns)]
    heights = [max((cell.height for cell in row), default=1) for row in cells]
    xs = [0, *accumulate(width + GAP for width in widths)]
    ys = [0, *accumulate(height + GAP for height in heights)]
    sheet = Image.new("RGB", (xs[-1] + GAP, ys[-1] + GAP), PAPER)
    for y, height, row in zip(ys, heights, cells, strict=False):
        for x, width, cell in zip(xs, widths, row, strict=False):
            left, top = (width - cell.width) // 2, (height - cell.height) // 2
            sheet.paste(cell.convert("RGB"), (x + GAP + left, y + GAP + top))
    return sheet


def save_png(picture: Image.Image, path: Path, facts: Mapping[str, str]) -> None:
    """Write a PNG, whole or not at all, with `facts` (prompt, seed, file hashes) as its text, sorted by name."""
    text = PngInfo()
    for name in sorted(facts):
        text.add_itxt(name, facts[name])
    with atomic(path) as stream:
        picture.save(stream, "PNG", pnginfo=text)
