"""Everything taken from a picture file in one reading: its measures, its thumbnail, and what copies are found by."""

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

from lorakiln.base import images
from lorakiln.base.records import Size
from lorakiln.curate import quality
from lorakiln.curate.picture import FIELD, THUMB, Measures, Picture

# Raise it when this room measures any picture otherwise than before: the index then starts anew.
VERSION = 2
_LOOKED_AT = 1024  # pixels are judged at this longest side at most


def read(path: Path, name: str) -> tuple[Picture, bytes]:
    """Read, decode and measure one file; with its thumbnail, a JPEG of at most 160 pixels a side.

    Raises UserError with the reason where it cannot be used.
    """
    return take(path, name, images.read(path))


def take(path: Path, name: str, data: bytes) -> tuple[Picture, bytes]:
    """`read` of bytes that were read already."""
    whole = images.decode(path, data, first_frame=True)
    note = f"moves ({whole.frames} frames), and only its first frame was looked at" if whole.frames > 1 else ""
    upright = whole.on(images.WHITE)
    small = upright
    if max(upright.size) > _LOOKED_AT:
        small = upright.copy()
        small.thumbnail((_LOOKED_AT, _LOOKED_AT), Image.Resampling.BOX, reducing_gap=None)
    measures = _measures(upright, small, whole)
    thumb = small.reduce(max(max(small.size) // (2 * THUMB), 1))
    thumb.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
    picture = Picture(
        name, hashlib.sha256(data).hexdigest(), Size(*upright.size), len(data), whole.format, whole.alpha is not None,
        measures, fields(small), note,
    )  # fmt: skip
    return picture, _jpeg(thumb)


def fields(picture: Image.Image) -> bytes:
    """Luma, and lightness (max + min) / 2, each at 32x32 whatever the shape: 2048 bytes."""
    tiny = np.asarray(picture.resize((FIELD, FIELD), Image.Resampling.BOX), np.float32)
    luma = tiny @ np.array([0.299, 0.587, 0.114], np.float32)
    light = (tiny.max(axis=2) + tiny.min(axis=2)) / 2
    return np.stack([luma, light]).round().astype(np.uint8).tobytes()


def _measures(upright: Image.Image, small: Image.Image, whole: images.Decoded) -> Measures:
    luma = np.asarray(upright.convert("L"))
    grey = luma if small is upright else np.asarray(small.convert("L"))
    flat, colours = quality.palette(np.asarray(small))
    return Measures(
        sharpness=round(quality.sharpness(grey), 3),
        jpeg_quality=quality.jpeg_quality(whole.tables) if whole.tables else None,
        border=quality.border(luma),
        text_band=round(quality.text_band(grey), 3),
        flat=round(flat, 4),
        contrast=round(float(grey.std()), 2),
        colours=colours,
        transparent=0.0 if whole.alpha is None else round(float((np.asarray(whole.alpha) < 128).mean()), 4),
        detail=quality.detail(luma),
    )


def _jpeg(thumb: Image.Image) -> bytes:
    stored = io.BytesIO()
    thumb.save(stored, "JPEG", quality=90, subsampling=0)
    return stored.getvalue()
