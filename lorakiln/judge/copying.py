"""Does it draw the pictures it was trained on again? Each drawing against its nearest training picture.

A copy is the same picture, not the same subject: what is compared is where light and edges lie, so that mirroring,
cropping and other colours do not hide it, and another pose of the same character is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lorakiln.curate import views
from lorakiln.curate.compare import Looks, relate
from lorakiln.curate.duplicates import box_of
from lorakiln.curate.measure import fields
from lorakiln.curate.picture import FIELD

CLOSE = 2  # training pictures that a drawing is laid over; the others are too unlike to matter
NEARER = 0.3  # share of the distances among training pictures within which a drawing is a copy
FAR = 0.12  # distance from which nothing is a copy, whatever the set
LEAST = 0.15  # such a distance at the least, where the set itself holds a picture twice


@dataclass(frozen=True, slots=True)
class Nearest:
    """The training picture that a drawing is most like.

    `distance` is 1 less the correlation of the two once laid over each other; `share` is it as a share of how far
    apart things of this set are anyway: from that training picture to its own nearest neighbour, or from the drawing to
    its second nearest picture, whichever is less (as Lowe 2004 tells a match from a likeness).
    """

    index: int
    distance: float
    share: float

    @property
    def copied(self) -> bool:
        return self.share < NEARER and self.distance < FAR


def copied_share(found: Sequence[Nearest]) -> float:
    """The share of drawings that are copies; 0 of none."""
    return sum(one.copied for one in found) / max(1, len(found))


class Gallery:
    """Training pictures, ready for drawings to be held against them. Without pictures nothing is ever a copy.

    `drawable` are the same pictures as the VAE gives them: a model cannot draw what its VAE loses, and where that is
    much, as of thin lines, a copy is nearer to these than to the picture itself.
    """

    def __init__(self, pictures: Sequence[Image.Image], drawable: Sequence[Image.Image] = ()):
        self.pictures = list(pictures)
        self._drawable = list(drawable) or self.pictures
        self._looks = [Looks(picture) for picture in self._drawable]
        self._views = [views.spectra(layer) for layer in _fields(self._drawable)] if pictures else []
        self._apart: dict[int, float] = {}

    def nearest(self, drawing: Image.Image) -> Nearest:
        """The most alike of all, by alignment and correlation of light and of edges (as `kiln curate` compares)."""
        found = self._search(drawing)
        if not found:
            return Nearest(-1, 1.0, 1.0)
        (distance, index), *others = found
        apart = min([self._neighbour(index), *(other for other, _ in others)])
        return Nearest(index, distance, distance / max(apart, LEAST))

    def _neighbour(self, index: int) -> float:
        """Distance from a training picture to the nearest other one; 1 where it is the only one."""
        if index not in self._apart:
            found = self._search(self._drawable[index], but=index)
            self._apart[index] = found[0][0] if found else 1.0
        return self._apart[index]

    def _search(self, picture: Image.Image, but: int = -1) -> list[tuple[float, int]]:
        """(distance, index) of the few training pictures that are most alike, nearest first."""
        own, found = Looks(picture), []
        for index, view, mirrored in self._close(picture, but):
            likeness = relate(self._looks[index], own, box_of(view), mirrored).likeness
            found.append((min(1.0, max(0.0, 1 - likeness)), index))
        return sorted(found)

    def _close(self, picture: Image.Image, but: int) -> list[tuple[int, int, bool]]:
        """(index, view, mirrored) of the likeliest few, by the coarse spectra of all their views."""
        best: dict[int, tuple[float, int, bool]] = {}
        for spectra_NVC, field in zip(self._views, _fields([picture]), strict=False):
            whole_C = views.spectra(field, 1)[0, 0]
            for mirrored in (False, True):
                alike_NV = spectra_NVC @ (whole_C * views.MIRROR if mirrored else whole_C)
                for index, view in enumerate(alike_NV.argmax(1).tolist()):
                    entry = (float(alike_NV[index, view]), view, mirrored)
                    if index != but and entry > best.get(index, (-2.0, 0, False)):
                        best[index] = entry
        ranked = sorted(best, key=lambda index: -best[index][0])[:CLOSE]
        return [(index, *best[index][1:]) for index in ranked]


def _fields(pictures: Sequence[Image.Image]) -> list[np.ndarray]:
    """Luma and lightness, (N, F, F) each."""
    joined = b"".join(fields(picture.convert("RGB")) for picture in pictures)
    both = np.frombuffer(joined, np.uint8).reshape(len(pictures), 2, FIELD, FIELD)
    return [both[:, 0], both[:, 1]]
