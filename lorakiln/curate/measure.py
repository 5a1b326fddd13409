"""Everything taken from a picture file in one reading: its measures, its thumbnail, and what copies are found by."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from lorakiln.base import images
from lorakiln.base.errors import UserError
from lorakiln.base.records import Size
from lorakiln.curate import quality
from lorakiln.curate.picture import FIELD, THUMB, Measures, Picture

# Raise it when this room measures any picture otherwise than before: the index then starts anew.
VERSION = 1
_LOOKED_AT = 1024  # pixels are judged at this longest side at most
_MOVING = ("GIF", "PNG", "WEBP", "AVIF")


def read(path: Path, name: str) -> tuple[Picture, bytes]:
    """Decode and measure one file; with its thumbnail, a JPEG of at most 160 pixels a side.

    Raises UserError with the reason where it cannot be used.
    """
    try:
        info, note = images.measure(path), ""
        upright = images.open_picture(path)
    except UserError as error:
        first = _first_frame(path)
        if first is None:
            raise
        info, upright, note = *first, f"moves, and only its first frame was looked at ({error})"
    small = upright
    if max(upright.size) > _LOOKED_AT:
        small = upright.copy()
        small.thumbnail((_LOOKED_AT, _LOOKED_AT), Image.Resampling.BOX, reducing_gap=None)
    kind, tables = _format(path)
    measures = _measures(upright, small, tables, _see_through(path) if info.has_alpha and not note else 0.0)
    thumb = small.reduce(max(max(small.size) // (2 * THUMB), 1))
    thumb.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
    size = Size(*upright.size)
    file_bytes = path.stat().st_size
    picture = Picture(name, info.sha256, size, file_bytes, kind, info.has_alpha, measures, fields(small), note)
    return picture, _jpeg(thumb)


def fields(picture: Image.Image) -> bytes:
    """Luma, and lightness (max + min) / 2, each at 32x32 whatever the shape: 2048 bytes."""
    tiny = np.asarray(picture.resize((FIELD, FIELD), Image.Resampling.BOX), np.float32)
    luma = tiny @ np.array([0.299, 0.587, 0.114], np.float32)
    light = (tiny.max(axis=2) + tiny.min(axis=2)) / 2
    return np.stack([luma, light]).round().astype(np.uint8).tobytes()


def _measures(upright: Image.Image, small: Image.Image, tables: dict | None, transparent: float) -> Measures:
    luma = np.asarray(upright.convert("L"))
    grey = luma if small is upright else np.asarray(small.convert("L"))
    flat, colours = quality.palette(np.asarray(small))
    return Measures(
        sharpness=round(quality.sharpness(grey), 3),
        jpeg_quality=quality.jpeg_quality(tables) if tables else None,
        border=quality.border(luma),
        text_band=round(quality.text_band(grey), 3),
        flat=round(flat, 4),
        contrast=round(float(grey.std()), 2),
        colours=colours,
        transparent=round(transparent, 4),
        detail=quality.detail(luma),
    )


def _format(path: Path) -> tuple[str, dict | None]:
    with Image.open(path, formats=images.FORMATS) as image:
        return image.format or "", getattr(image, "quantization", None) or None


def _see_through(path: Path) -> float:
    mask = images.alpha_mask(path)
    return 0.0 if mask is None else float((np.asarray(mask) < 128).mean())


def _jpeg(thumb: Image.Image) -> bytes:
    stored = io.BytesIO()
    thumb.save(stored, "JPEG", quality=90, subsampling=0)
    return stored.getvalue()


def _first_frame(path: Path) -> tuple[images.PictureInfo, Image.Image] | None:
    """The first frame of a GIF, APNG or other moving picture, on white; None for anything else."""
    from lorakiln.base.files import sha256

    try:
        with Image.open(path, formats=images.FORMATS) as image:
            if image.format not in _MOVING or getattr(image, "n_frames", 1) < 2:
                return None
            image.seek(0)
            frame = image.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    flat = Image.new("RGB", frame.size, images.WHITE)
    flat.paste(frame, (0, 0), frame)
    return images.PictureInfo(Size(*frame.size), True, sha256(path)), flat
