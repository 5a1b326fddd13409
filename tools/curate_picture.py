"""Draws docs/pictures/curate-group.webp: one group of copies and its near poses, as `kiln curate` finds and names them.

Run `python -m tools.curate_picture` after `make starter` has fetched the drawings. The words are those that Kiln says.
"""

import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from benchmarks import planted
from lorakiln.curate.duplicates import find
from lorakiln.curate.scan import scan

TILE, TEXT = 168, 34
TARGET = Path(__file__).parents[1] / "docs" / "pictures" / "curate-group.webp"


def make() -> None:
    """Plant, find, draw."""
    with tempfile.TemporaryDirectory() as folder:
        rows = list(planted.write(Path(folder), 14, 512, seed=4))
        found = scan(Path(folder))
        result = find(found.pictures, found.index)
        near = {picture.name: poses.pictures for poses in result.near for picture in poses.pictures}
        group = next(group for group in result.groups if group.best.name in near and len(group.copies) == 8)
        tiles = [(Path(folder) / group.best.name, "kept")]
        tiles += [(Path(folder) / copy.picture.name, copy.what) for copy in group.copies]
        others = [picture.name for picture in near[group.best.name] if picture.name != group.best.name]
        tiles += [(Path(folder) / name, "near pose") for name in others]
        found.index.close()
        assert len(rows) >= 126, "fourteen originals with eight copies each"
        _sheet(tiles[:12]).save(TARGET, "WEBP", quality=85)


def _sheet(tiles: list[tuple[Path, str]]) -> Image.Image:
    """Six tiles a row, the kept one outlined, words below each."""
    font = ImageFont.load_default(size=13)
    rows = -(-len(tiles) // 6)
    sheet = Image.new("RGB", (6 * (TILE + 10) + 10, rows * (TILE + TEXT + 10) + 10), "#f5f5f7")
    pen = ImageDraw.Draw(sheet)
    for at, (path, words) in enumerate(tiles):
        left, top = 10 + at % 6 * (TILE + 10), 10 + at // 6 * (TILE + TEXT + 10)
        with Image.open(path) as image:
            picture = image.convert("RGB")
        picture.thumbnail((TILE - 8, TILE - 8))
        if words == "kept":
            pen.rectangle((left, top, left + TILE, top + TILE), "#2d7d46")
        sheet.paste(picture, (left + (TILE - picture.width) // 2, top + (TILE - picture.height) // 2))
        pen.text((left + 2, top + TILE + 4), words, "#1d1d1f", font)
    return sheet


if __name__ == "__main__":
    make()
