"""Reading a picture file rightly, once: rotation, colour modes, 16 bits, transparency; and what cannot be read.

A picture is known by its bytes, never by its extension. Pillow does the decoding; everything that could silently
change a training picture (an EXIF rotation, a palette's transparent colour, 16 bits clipped to white) is settled here.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageColor, ImageOps

from lorakiln.base.errors import UserError
from lorakiln.base.records import Crop, Size

EXTENSIONS = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}
)
# What is a picture to its owner and to nothing here: named instead of passed over.
UNREAD = frozenset(
    {".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".tga", ".ppm", ".pgm", ".pnm", ".pcx", ".ico", ".svg", ".psd"}
    | {".xcf", ".kra", ".clip", ".exr", ".hdr", ".dds", ".qoi", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2"}
)
Image.init()  # an older Pillow knows no AVIF, and asking it for an unknown format is an error
FORMATS = tuple(Image.OPEN.keys() & {"PNG", "JPEG", "MPO", "WEBP", "BMP", "GIF", "TIFF", "AVIF"})
RESIZE_FILTER = "lanczos"
# Part of every cached latent's key: raise it when this file decodes any picture to other pixels than before.
DECODER_VERSION = 1

Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)

_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")
# Where a PNG may carry its rotation. Pillow decodes the whole picture to look for them, so look first.
_PNG_ROTATION = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")


@dataclass(frozen=True, slots=True)
class PictureInfo:
    """What a file holds: its size in pixels as a viewer shows it (after rotation), and the hash of its bytes."""

    size: Size
    has_alpha: bool
    sha256: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """A whole file decoded once: upright colours (RGB) and transparency (L, 255 = opaque; None where it has none).

    `tables` are a JPEG's quantization tables by number; `frames` counts all, of which this is the first.
    """

    colours: Image.Image
    alpha: Image.Image | None
    format: str
    tables: Mapping[int, Sequence[int]]
    frames: int

    def on(self, background: Colour) -> Image.Image:
        """The colours with transparency laid on `background`."""
        if self.alpha is None:
            return self.colours
        return Image.composite(self.colours, Image.new("RGB", self.colours.size, background), self.alpha)


def measure(path: Path) -> PictureInfo:
    """Read a picture's header and hash its file. Pixels are decoded only where the rotation cannot be had otherwise.

    Raises UserError for what `open_picture` refuses, as far as a header shows it (a cut-off file shows later).
    """
    data = read(path)
    with _Refusals(path), _open(path, data) as image:
        width, height = image.size
        if _orientation(image, data) in _SIDEWAYS:
            width, height = height, width
            if image.format == "TIFF":  # Pillow turns these itself, some versions already in the header
                image.load()
                width, height = image.size
        return PictureInfo(Size(width, height), _has_alpha(image), hashlib.sha256(data).hexdigest())


def open_picture(path: Path, background: Colour = WHITE) -> Image.Image:
    """Decode a file to an upright RGB picture, transparency laid on `background`.

    Raises UserError naming the file when it is missing, not a picture, cut off, animated, or in a mode with no
    defined look (32-bit float).
    """
    return decode(path, read(path)).on(background)


def alpha_mask(path: Path) -> Image.Image | None:
    """The picture's transparency as an upright 8-bit picture (255 = opaque), or None where it has none."""
    return decode(path, read(path)).alpha


def decode(path: Path, data: bytes, first_frame: bool = False) -> Decoded:
    """Decode a file's bytes; `path` names it in errors. Raises UserError as `open_picture` does, but with `first_frame`
    a moving picture (not a TIFF of several pages) gives its first frame."""
    with _Refusals(path), _open(path, data, first_frame) as image:
        frames = _frames(image)
        image.load()
        turn = _TURNS.get(_orientation(image, data))
        colours, alpha = _layers(path, image)
        if turn is not None:
            colours, alpha = colours.transpose(turn), None if alpha is None else alpha.transpose(turn)
        return Decoded(colours, alpha, image.format or "", getattr(image, "quantization", None) or {}, frames)


def read(path: Path) -> bytes:
    """A file's bytes. Raises UserError where they cannot be had."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def to_pixels(picture: Image.Image, crop: Crop) -> np.ndarray:
    """Resize (Lanczos, antialiased), flip and cut an RGB picture: float32 (3, height, width), -1 to 1."""
    values_HWC = np.asarray(_placed(picture, crop, Image.Resampling.LANCZOS), dtype=np.float32)
    return np.ascontiguousarray(values_HWC.transpose(2, 0, 1)) / np.float32(127.5) - np.float32(1)


def to_mask(mask: Image.Image, crop: Crop, factor: int = 8) -> np.ndarray:
    """A greyscale mask in the same crop, averaged over `factor`: float32 (1, height/factor, width/factor), 0 to 1."""
    width, height = crop.target
    values_HW = np.asarray(_placed(mask, crop, Image.Resampling.BILINEAR), dtype=np.float32) / np.float32(255)
    blocks = values_HW.reshape(height // factor, factor, width // factor, factor)
    return blocks.mean(axis=(1, 3), dtype=np.float32)[None]


def parse_colour(text: str) -> Colour:
    """`"white"`, `"#808080"` or `"rgb(0, 0, 0)"` as three numbers 0-255. Raises UserError for other text."""
    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError:
        raise UserError(f"'{text}' is not a colour; use a name or hex digits, e.g. 'white' or '#808080'") from None
    return red, green, blue


def _placed(picture: Image.Image, crop: Crop, resampling: Image.Resampling) -> Image.Image:
    if picture.size != crop.resized:
        picture = picture.resize(crop.resized, resampling)
    if crop.flipped:
        picture = ImageOps.mirror(picture)
    left, top = crop.left, crop.top
    return picture.crop((left, top, left + crop.target.width, top + crop.target.height))


class _Refusals:
    """Turns whatever Pillow raises on a bad file into one line that names the file."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, UserError) or not isinstance(error, Exception):
            return
        if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
            most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
            raise UserError(f"{self.path}: too many pixels to be opened safely (at most {most:,})") from error
        if isinstance(error, MemoryError):
            raise UserError(f"{self.path}: needs more memory than there is") from error
        raise UserError(f"{self.path}: cannot be decoded; the file is cut off or damaged") from error


def _open(path: Path, data: bytes, first_frame: bool = False) -> Image.Image:
    """The file with only its header read. Raises UserError for what is no picture, or more than one."""
    if not data:
        raise UserError(f"{path}: is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise UserError(f"{path}: is not a picture; readable are PNG, JPEG, WebP, AVIF, BMP, GIF and TIFF") from None
    frames = _frames(image)
    if frames > 1 and (not first_frame or image.format == "TIFF"):
        what = "pages" if image.format == "TIFF" else "frames"
        raise UserError(f"{path}: is animated or has several pages ({frames} {what}); save the one to train on")
    return image


def _frames(image: Image.Image) -> int:
    # An MPO is a JPEG whose further frames are a camera's previews or depth maps: its first frame is the picture.
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


def _orientation(image: Image.Image, data: bytes) -> int:
    if image.format == "PNG" and not any(mark in data for mark in _PNG_ROTATION):
        return 1
    return image.getexif().get(_ORIENTATION, 1)


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in _ALPHA_MODES or "transparency" in image.info


def _layers(path: Path, image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    if image.mode == "F":
        raise UserError(f"{path}: holds 32-bit floating-point pixels; save it with 8 or 16 bits a channel")
    if image.mode == "I" or image.mode.startswith("I;"):
        return _from_deep_grey(path, image)
    if _has_alpha(image):
        clear = image.info.get("transparency")
        if isinstance(clear, tuple) and max(clear) > 255:  # of a 16-bit PNG, whose pixels Pillow keeps 8 bits of
            image.info["transparency"] = tuple(value >> 8 for value in clear)
        layered = image.convert("RGBA")
        return _to_srgb(layered.convert("RGB"), image.info), layered.getchannel("A")
    return _to_srgb(image if image.mode == "CMYK" else image.convert("RGB"), image.info), None


def _from_deep_grey(path: Path, image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """16-bit grey scaled to 8 bits; Pillow's own conversion clips everything above 255 to white."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise UserError(f"{path}: holds 32-bit pixels; save it with 8 or 16 bits a channel")
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    clear = image.info.get("transparency")
    alpha = None if clear is None else Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))
    return grey.convert("RGB"), alpha


def _to_srgb(image: Image.Image, info: dict) -> Image.Image:
    """Colours in the space every model was trained on: a phone's Display P3 or a scan's CMYK profile is converted."""
    embedded = info.get("icc_profile")
    if embedded:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(embedded))
            space = profile.profile.xcolor_space.strip()
            named_srgb = "srgb" in (profile.profile.profile_description or "").lower()
            if space == image.mode and not named_srgb:
                converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
                return converted or image.convert("RGB")
        except (ImageCms.PyCMSError, OSError):  # a damaged profile: shown as every viewer shows it, without one
            pass
    return image.convert("RGB")
