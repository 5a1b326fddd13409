"""The order in which pictures are visited, and the batches made of those visits.

Chance is keyed by what is visited, never by who loads it: any number of processes and any batch see the same draws.
B batch, C latent channels, H and W latent height and width.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from lorakiln.base import chance
from lorakiln.base.errors import UserError
from lorakiln.base.records import Crop, Size
from lorakiln.data.buckets import flip
from lorakiln.data.cache import LatentCache
from lorakiln.data.dataset import Dataset, Example
from lorakiln.data.masks import Masks
from lorakiln.diffusion.noise import generator


@dataclass(frozen=True, slots=True)
class Batching:
    """How visits are grouped: `batch` pictures a process, `world` processes, `accumulate` batches a step."""

    seed: int
    batch: int = 1
    accumulate: int = 1
    rank: int = 0
    world: int = 1

    @property
    def whole(self) -> int:
        """Pictures of one batch over all processes."""
        return self.batch * self.world


@dataclass(frozen=True, slots=True)
class Visit:
    """One look at one picture: the `number`-th (of its repeats) in `epoch`, at `slot` of that step.

    Slots number the pictures of a step, over all its accumulated batches and all processes, from 0.
    """

    index: int
    number: int
    epoch: int
    slot: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures of one bucket. Latents are fp32, on the CPU, drawn from the posterior, not yet scaled for the UNet.

    `place` numbers the step's accumulated batches, over all processes, from 0. `masks_B1HW` (0 = not learned, at
    latent resolution) is None where no dataset has masks.
    """

    latents_BCHW: Tensor
    captions: list[str]
    crops: list[Crop]
    slots: list[int]
    names: list[str]
    weights: list[float]
    masks_B1HW: Tensor | None = None
    place: int = 0


Plan = list[list[list[Visit]]]


def plan(examples: Sequence[Example], epoch: int, batching: Batching) -> Plan:
    """An epoch's steps, each a list of batches over all processes, each of one bucket.

    Every picture is visited exactly `repeats` times. The last batch of a bucket may be smaller. Visits are shuffled
    within their bucket, then the batches; both by (seed, epoch) alone.
    """
    rng = chance.rng(batching.seed, "order", epoch)
    buckets: dict[Size, list[tuple[int, int]]] = {}
    for index, example in enumerate(examples):
        looks = [(index, number) for number in range(example.spec.repeats)]
        buckets.setdefault(example.crop.target, []).extend(looks)
    batches = []
    for _, looks in sorted(buckets.items()):
        rng.shuffle(looks)
        batches += [looks[at : at + batching.whole] for at in range(0, len(looks), batching.whole)]
    rng.shuffle(batches)
    numbered = [
        [Visit(*look, epoch, place % batching.accumulate * batching.whole + slot) for slot, look in enumerate(batch)]
        for place, batch in enumerate(batches)
    ]
    return [numbered[at : at + batching.accumulate] for at in range(0, len(numbered), batching.accumulate)]


def steps_per_epoch(examples: Sequence[Example], batching: Batching) -> int:
    """Exactly `len(plan(...))` for every epoch."""
    visits: dict[Size, int] = {}
    for example in examples:
        visits[example.crop.target] = visits.get(example.crop.target, 0) + example.spec.repeats
    batches = sum(-(-count // batching.whole) for count in visits.values())
    return -(-batches // batching.accumulate)


class Loader:
    """Batches of one process. Epochs and the steps inside an epoch count from 0.

    Loading runs one step ahead in a thread where latents are cached; what is drawn does not depend on it.
    """

    def __init__(self, dataset: Dataset, cache: LatentCache, batching: Batching):
        if cache.store is not None and any(example.spec.random_crop for example in dataset.examples):
            raise UserError("random_crop = true: a cached picture is always cut the same; set cache.latents = 'off'")
        self.examples, self.cache, self.batching = dataset.examples, cache, batching
        self.masks = Masks()
        self.steps_per_epoch = steps_per_epoch(self.examples, batching)
        self._masked = any(example.mask for example in self.examples)
        self._plans: dict[int, Plan] = {}
        self._ahead: dict[tuple[int, int], Future[list[Batch]]] = {}
        self._thread = ThreadPoolExecutor(1, "loader") if cache.store is not None else None

    def visits(self, epoch: int, step: int) -> list[list[Visit]]:
        """The batches of one step, over all processes."""
        if epoch not in self._plans:
            self._plans = {
                **dict(list(self._plans.items())[-1:]),
                epoch: plan(self.examples, epoch, self.batching),
            }
        return self._plans[epoch][step]

    def count(self, epoch: int, step: int) -> int:
        """Pictures of one step, over all processes and accumulated batches: what a step's loss is divided by."""
        return sum(map(len, self.visits(epoch, step)))

    def batches(self, epoch: int, step: int) -> list[Batch]:
        """This process's batches of one step; none where the step holds fewer pictures than there are processes."""
        ready = self._ahead.pop((epoch, step), None)
        batches = ready.result() if ready else self._load(self._share(epoch, step))
        if self._thread:
            self._ahead.clear()
            follower = (epoch, step + 1) if step + 1 < self.steps_per_epoch else (epoch + 1, 0)
            self._ahead[follower] = self._thread.submit(self._load, self._share(*follower))
        return batches

    def batch(self, visits: Sequence[Visit], place: int = 0) -> Batch:
        """Load visits of one bucket (at least one), the step's batch number `place`."""
        looked = [self.examples[visit.index] for visit in visits]
        crops = [self.crop(visit) for visit in visits]
        latents = [self._latent(*each) for each in zip(looked, crops, visits, strict=True)]
        masks = [self.masks.read(example, crop) for example, crop in zip(looked, crops, strict=True)]
        return Batch(
            torch.stack(latents),
            [self.caption(visit) for visit in visits],
            crops,
            [visit.slot for visit in visits],
            [example.name for example in looked],
            [example.spec.weight for example in looked],
            torch.stack(masks) if self._masked else None,
            place,
        )

    def caption(self, visit: Visit) -> str:
        """The caption drawn for this visit."""
        example = self.examples[visit.index]
        return example.spec.draw(example.caption, self._key("caption", visit))

    def captions(self, epoch: int) -> list[str]:
        """Every caption this process will meet in an epoch, each once, in the order of their first use."""
        shares = [share for step in range(self.steps_per_epoch) for _, share in self._share(epoch, step)]
        return list(dict.fromkeys(self.caption(visit) for share in shares for visit in share))

    def crop(self, visit: Visit) -> Crop:
        """How this visit cuts its picture. A flipped dataset shows every picture mirrored at every other visit."""
        example = self.examples[visit.index]
        crop = example.crop
        if example.spec.random_crop:
            rng = chance.rng(self.batching.seed, "crop", visit.epoch, visit.index, visit.number)
            crop = example.spec.buckets.fit(example.size, rng)
        turn = chance.key(self.batching.seed, "flip", visit.index) + visit.epoch * example.spec.repeats + visit.number
        return flip(crop) if example.spec.flip and turn % 2 else crop

    def close(self) -> None:
        """Stop loading ahead."""
        if self._thread:
            self._thread.shutdown(cancel_futures=True)

    def _share(self, epoch: int, step: int) -> list[tuple[int, list[Visit]]]:
        """(place, this process's visits) of each batch of a step in which it has any."""
        shares = [batch[self.batching.rank :: self.batching.world] for batch in self.visits(epoch, step)]
        return [(place, share) for place, share in enumerate(shares) if share]

    def _load(self, shares: Sequence[tuple[int, Sequence[Visit]]]) -> list[Batch]:
        return [self.batch(share, place) for place, share in shares]

    def _latent(self, example: Example, crop: Crop, visit: Visit) -> Tensor:
        mean_CHW, logvar_CHW = self.cache.read(example.shot(crop))
        where = (visit.epoch, visit.index, visit.number)
        noise_CHW = torch.randn(mean_CHW.shape, generator=generator(self.batching.seed, "posterior", *where))
        return mean_CHW + torch.exp(0.5 * logvar_CHW) * noise_CHW

    def _key(self, use: str, visit: Visit) -> int:
        return chance.key(self.batching.seed, use, visit.epoch, visit.index, visit.number)
