"""Renders every emoji once, large and cut out, into one array that pictures are composed from."""

import io
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from . import catalogue
from .places import BUILD, NOTO_FONT, OPENMOJI, TWEMOJI

SIZE = 192  # pixels a side; pictures use at most 124 of 128
RENDERED = 240
SMALLEST = 0.55  # drawings smaller than this share of the canvas are not blown up to fill it


def cut_out(image: Image.Image) -> np.ndarray:
    """Crop to what is drawn, centred on a transparent square: SIZE x SIZE x 4."""
    box = image.getchannel("A").getbbox()
    if box is None:
        return np.zeros((SIZE, SIZE, 4), np.uint8)
    drawn = image.crop(box)
    side = max(*drawn.size, int(image.width * SMALLEST))
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
    return np.asarray(square.resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def svg_image(path: Path, pixels: int) -> Image.Image:
    """An SVG file as an RGBA picture."""
    import resvg_py

    data = resvg_py.svg_to_bytes(svg_path=str(path), width=pixels, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(data))).convert("RGBA")


def svg_master(path: Path) -> np.ndarray:
    """An SVG file, cut out."""
    return cut_out(svg_image(path, RENDERED))


def render(paths: list[Path], codes: list[str], name: str) -> None:
    """Write masters/<name>.npy and the codes of its rows."""
    folder = BUILD / "masters"
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(2) as pool:
        rows = list(pool.map(svg_master, paths, chunksize=32))
    np.save(folder / f"{name}.npy", np.stack(rows))
    (folder / f"{name}.json").write_text(json.dumps(codes))


def twemoji_code(code: str) -> str:
    """An OpenMoji code as Twemoji names its files (no variation selector, unless joined)."""
    points = code.lower().split("-")
    kept = points if "200d" in points else [point for point in points if point != "fe0f"]
    return "-".join(point.lstrip("0") or "0" for point in kept)


def noto_masters() -> None:
    """Noto's bitmaps (136 x 128), straight from the font; characters of one code point only."""
    from fontTools.ttLib import TTFont

    font = TTFont(NOTO_FONT)
    strikes, rows, codes = font["CBDT"].strikeData[0], [], []
    for point, glyph in font.getBestCmap().items():
        code = f"{point:X}"
        bitmap = strikes.get(glyph)
        if bitmap is None or point < 0x203C:
            continue
        image = Image.open(io.BytesIO(bitmap.imageData)).convert("RGBA")
        square = Image.new("RGBA", (136, 136), (0, 0, 0, 0))
        square.paste(image, ((136 - image.width) // 2, (136 - image.height) // 2))
        rows.append(cut_out(square))
        codes.append(code)
    np.save(BUILD / "masters" / "noto.npy", np.stack(rows))
    (BUILD / "masters" / "noto.json").write_text(json.dumps(codes))


def load(name: str) -> tuple[np.ndarray, dict[str, int]]:
    """The masters of one family (read as needed), and the row of each code."""
    rows = np.load(BUILD / "masters" / f"{name}.npy", mmap_mode="r")
    codes = json.loads((BUILD / "masters" / f"{name}.json").read_text())
    return rows, {code: row for row, code in enumerate(codes)}


def make() -> None:
    """Render OpenMoji, Twemoji and Noto."""
    done = BUILD / "masters"
    codes = [emoji.code for emoji in catalogue.everything()]
    if not (done / "openmoji.json").exists():
        folder = OPENMOJI / "color" / "svg"
        codes_there = [code for code in codes if (folder / f"{code}.svg").exists()]
        render([folder / f"{code}.svg" for code in codes_there], codes_there, "openmoji")
    if not (done / "twemoji.json").exists():
        folders = [TWEMOJI / f"{twemoji_code(emoji.code)}.svg" for emoji in catalogue.concepts()]
        pairs = zip(folders, catalogue.concepts(), strict=True)
        there = [(path, emoji.code) for path, emoji in pairs if path.exists()]
        render([path for path, _ in there], [code for _, code in there], "twemoji")
    if NOTO_FONT.exists() and not (done / "noto.json").exists():
        noto_masters()
