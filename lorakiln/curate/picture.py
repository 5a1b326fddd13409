"""What is known of one picture of a dataset before anyone trains on it: the small frozen values of this room."""

from dataclasses import dataclass

from lorakiln.base.records import Size

FIELD = 32  # side of the two small grey fields that copies are looked up with
THUMB = 160  # longest side of the kept thumbnail, pixels
# Endings of what belongs to a picture and goes with it: captions, masks' notes, other tools' caches.
COMPANIONS = (".txt", ".caption", ".cap", ".tags", ".json", ".npz")


@dataclass(frozen=True, slots=True)
class Measures:
    """What was measured on the pixels.

    `sharpness` is 1 for edges one pixel wide and falls as 1/width (at a longest side of at most 1024 pixels);
    `jpeg_quality` is 1-100, or None where the file is no JPEG; `border` counts bar pixels left, top, right, bottom;
    `text_band` is 0-1, how much a strip near an edge looks like a line of text; `flat` is the share of pixels of the
    commonest colour; `contrast` the deviation of the brightness, 0-128; `colours` counts colours in 5 bits a channel;
    `transparent` is the share of see-through pixels; `detail` the part of its side at which it would hold as much.
    """

    sharpness: float
    jpeg_quality: int | None
    border: tuple[int, int, int, int]
    text_band: float
    flat: float
    contrast: float
    colours: int
    transparent: float
    detail: float

    @property
    def framed(self) -> bool:
        """Whether bars lie on two opposite sides: what a letterbox or a frame does, and a plain ground does not."""
        left, top, right, bottom = self.border
        return bool((left and right) or (top and bottom))


@dataclass(frozen=True, slots=True)
class Picture:
    """One readable picture. `name` is its path below the scanned folder, with forward slashes.

    `fields` holds two grey 32x32 pictures (uint8, 2048 bytes): luma, and lightness (max + min) / 2, which a change of
    hue leaves alone. `note` is a warning ("" for none).
    """

    name: str
    sha256: str
    size: Size
    file_bytes: int
    format: str
    has_alpha: bool
    measures: Measures
    fields: bytes
    note: str = ""

    @property
    def pixels(self) -> int:
        return self.size.width * self.size.height

    @property
    def folder(self) -> str:
        """The folder that it lies in, below the scanned one; "" for the scanned folder itself."""
        return self.name.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that cannot be used, and why; `tried` is False where its format is not read at all."""

    name: str
    reason: str
    tried: bool = True
