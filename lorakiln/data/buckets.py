"""Which shape a picture is trained at: the aspect bucket it fits best, and what is cut off to fit it.

A bucket is a size whose area is at most `resolution` squared and whose sides are multiples of `step`. Pure arithmetic.
"""

import functools
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

from lorakiln.base.errors import UserError
from lorakiln.base.records import Crop, Size

SDXL = Size(1024, 1024)


@dataclass(frozen=True, slots=True)
class Buckets:
    """The rule for one dataset. All numbers are pixels; `low` and `high` bound a bucket's sides.

    `low` 0 means half the resolution, `high` 0 twice it (SDXL's own table: 512 to 2048). With `no_upscale` a picture
    is never enlarged: it gets the bucket just inside its own size, where `low` and `high` do not apply (as in kohya).
    With `enabled` off every picture is cut to `resolution` itself.
    """

    resolution: Size = SDXL
    step: int = 64
    low: int = 0
    high: int = 0
    no_upscale: bool = False
    enabled: bool = True

    def __post_init__(self):
        if self.step < 8 or self.step % 8:
            raise UserError(f"bucket_step = {self.step}: must be a multiple of 8, 8 or more")
        width, height = self.resolution
        if width < 8 or height < 8 or width % 8 or height % 8:
            raise UserError(f"resolution = {self.resolution}: both sides must be multiples of 8, 8 or more")
        if self.enabled and not self.no_upscale and not self.sizes:
            low, high = self.bounds
            raise UserError(
                f"bucket_min = {low}, bucket_max = {high}, bucket_step = {self.step}: no bucket of at most "
                f"{self.resolution} pixels lies between them"
            )

    @property
    def bounds(self) -> tuple[int, int]:
        """Shortest and longest allowed side, rounded inwards to multiples of `step`."""
        side = math.isqrt(self.resolution.width * self.resolution.height)
        low, high = self.low or max(side // 2, self.step), self.high or 2 * side
        return math.ceil(low / self.step) * self.step, high // self.step * self.step

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Every bucket, narrowest first: for each width the greatest height that the area allows, and both turned."""
        return _sizes(self.resolution.width * self.resolution.height, self.step, *self.bounds)

    def fit(self, size: Size, rng: random.Random | None = None) -> Crop:
        """The bucket that loses least of a picture of `size`, cut at the centre, or anywhere where `rng` is given.

        Raises UserError for a picture with a side under one step, where `no_upscale` forbids to enlarge it.
        """
        if not self.enabled:
            return _cut(size, _cover(size, self.resolution), self.resolution, rng)
        if self.no_upscale:
            resized = self._shrunk(size)
            target = Size(*(side // self.step * self.step for side in resized))
            if 0 in target:
                raise UserError(f"{size} pixels: fits no bucket of step {self.step} unless no_upscale = false")
            return _cut(size, resized, target, rng)
        target = size if size in self.sizes else min(self.sizes, key=lambda bucket: _mismatch(size, bucket))
        return _cut(size, _cover(size, target), target, rng)

    def _shrunk(self, size: Size) -> Size:
        """The picture at no more than the bucket area, one side a multiple of `step` (the one nearer to the aspect)."""
        area = self.resolution.width * self.resolution.height
        if size.width * size.height <= area:
            return size
        aspect = size.width / size.height
        width = int(math.sqrt(area * aspect)) // self.step * self.step
        height = int(math.sqrt(area / aspect)) // self.step * self.step
        # of two sides whose product would exceed the area by rounding, the second is rounded down
        by_width = Size(width, min(int(width / aspect + 0.5), area // max(width, 1)))
        by_height = Size(min(int(height * aspect + 0.5), area // max(height, 1)), height)
        whole = [resized for resized in (by_width, by_height) if min(resized) >= self.step]
        return min(whole, key=self._remainder, default=by_width)

    def _remainder(self, resized: Size) -> float:
        inside = math.prod(side // self.step * self.step for side in resized)
        return 1 - inside / math.prod(resized)


@dataclass(frozen=True, slots=True)
class BucketRow:
    """One line of the bucket table: how many pictures train at `bucket`, and the share of them that is cut off."""

    bucket: Size
    count: int
    mean_lost: float
    most_lost: float


def flip(crop: Crop) -> Crop:
    """The same part of the picture, mirrored. `left` counts from the mirrored picture's left edge."""
    left = crop.resized.width - crop.target.width - crop.left
    return replace(crop, left=left, flipped=not crop.flipped)


def bucket_report(crops: Iterable[Crop]) -> list[BucketRow]:
    """One row for each bucket in use, by width then height; `lost` is a share of the picture's area, 0 to 1."""
    losses: dict[Size, list[float]] = {}
    for crop in crops:
        losses.setdefault(crop.target, []).append(crop.lost)
    return [BucketRow(size, len(lost), sum(lost) / len(lost), max(lost)) for size, lost in sorted(losses.items())]


@functools.cache
def _sizes(area: int, step: int, low: int, high: int) -> tuple[Size, ...]:
    side = math.isqrt(area) // step * step
    found = {Size(side, side)} if low <= side <= high else set()
    for width in range(low, high + 1, step):
        height = min(high, area // width // step * step)
        if height >= low:
            found |= {Size(width, height), Size(height, width)}
    return tuple(sorted(found))


def _mismatch(size: Size, bucket: Size) -> tuple[float, int]:
    """What covering `bucket` cuts off, then the area, smaller first: the order in which buckets are preferred."""
    one, other = size.width * bucket.height, size.height * bucket.width
    return 1 - min(one, other) / max(one, other), -bucket.width * bucket.height


def _cover(size: Size, target: Size) -> Size:
    """The smallest size of the picture's own aspect that covers `target`; rounded to whole pixels."""
    if size.width * target.height >= size.height * target.width:
        width = (2 * size.width * target.height + size.height) // (2 * size.height)
        return Size(max(width, target.width), target.height)
    height = (2 * size.height * target.width + size.width) // (2 * size.width)
    return Size(target.width, max(height, target.height))


def _cut(size: Size, resized: Size, target: Size, rng: random.Random | None) -> Crop:
    spare_x, spare_y = resized.width - target.width, resized.height - target.height
    if rng is None:
        return Crop(size, resized, spare_x // 2, spare_y // 2, target)
    return Crop(size, resized, rng.randint(0, spare_x), rng.randint(0, spare_y), target)
