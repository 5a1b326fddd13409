"""The objects of a run, and what is made ready of them before and between its epochs."""

import hashlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

from lorakiln.adapters.files.write import DTYPES
from lorakiln.adapters.network import Network
from lorakiln.base.files import sha256
from lorakiln.data.dataset import Dataset, Example
from lorakiln.data.loader import Loader
from lorakiln.families.family import Family
from lorakiln.runs.machine import World
from lorakiln.runs.reporter import Stages
from lorakiln.runs.text import FrozenText
from lorakiln.sample.generate import Request
from lorakiln.train.basis import Basis
from lorakiln.train.learner import Learner
from lorakiln.train.plan import Plan
from lorakiln.train.step import Step


@dataclass
class Parts:
    """A run's objects. Nothing has been written yet."""

    world: World
    family: Family
    dataset: Dataset
    loader: Loader
    plan: Plan
    network: Network
    learner: Learner
    step: Step
    text: FrozenText | None  # None: the text encoders are trained, so nothing of theirs is kept
    samples: list[Request]
    heldout: tuple[Example, ...] = ()
    _hash: Future[str] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.world.leads:  # it writes the hash; 7 GB take seconds, which the pictures take too
            reader = ThreadPoolExecutor(1, "hash")
            self._hash = reader.submit(self.family.digest)
            reader.shutdown(wait=False)

    @property
    def base_hash(self) -> str:
        """The digest of the base's weights."""
        return self._hash.result() if self._hash else self.family.digest()

    @cached_property
    def basis(self) -> Basis:
        """What a state of this run rests on."""
        folders = self.dataset.folders
        pictures = tuple((f"{folders[one.spec.folder]}/{one.name}", _learned(one)) for one in self.dataset.examples)
        precision = next(name for name, dtype in DTYPES.items() if dtype == self.family.dtype)
        return Basis(pictures, self.world.size, precision, self.base_hash)

    def fill_caches(self, stages: Stages, start: int = 0) -> None:
        """Encode all pictures, and the captions of the epoch after step `start`; where latents are not kept, decode
        every picture once. Raises UserError naming a picture that cannot be used."""
        shots = self.dataset.shots()[self.world.rank :: self.world.size]
        kept = self.loader.cache.store is not None
        with stages.stage("cache latents" if kept else "check pictures", len(shots)):
            # one entry at a time: its bytes then depend on its key alone, however often the filling is stopped
            self.loader.cache.fill(shots, progress=_counter(stages))
            self.world.wait()
        self.encode_captions(self.plan.moment(start + 1).epoch, stages)

    def encode_captions(self, epoch: int, stages: Stages) -> None:
        """Encode ahead the captions of an epoch, counted from 1, in the order in which they come."""
        if self.text and self.text.cached:
            with stages.stage("encode captions"):
                self.text.fill(self.loader.captions(epoch - 1))


def _counter(stages: Stages) -> Callable[[int, int], None]:
    counted = 0

    def progress(done: int, _total: int) -> None:
        nonlocal counted
        stages.reporter.advance(done - counted)
        counted = done

    return progress


def _learned(example: Example) -> str:
    """Digest of what is learned from a picture, apart from the recipe's settings."""
    mask = sha256(example.mask) if example.mask and example.mask != example.path else ""
    parts = example.sha256, example.caption, example.spec.repeats, mask
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
