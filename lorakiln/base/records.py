"""The small frozen values that cross from one room of the house to another."""

from dataclasses import dataclass
from typing import NamedTuple


class Size(NamedTuple):
    """Pixels, width first."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True)
class Crop:
    """What was really done to a picture on its way into a bucket.

    `left` and `top` are in pixels of the resized picture, as the model sees it (after the flip, if there was one).
    """

    original: Size
    resized: Size
    left: int
    top: int
    target: Size
    flipped: bool = False

    @property
    def lost(self) -> float:
        """Share of the picture's area that the crop cuts off, 0 to 1."""
        return 1 - (self.target.width * self.target.height) / (self.resized.width * self.resized.height)
