"""Which pictures are held out of training, to be judged by: chosen by content and seed, copies never parted."""

from collections.abc import Sequence
from typing import Protocol

from lorakiln.base import chance
from lorakiln.base.errors import UserError

Groups = Sequence[Sequence[int]]


class Known(Protocol):
    """A picture by the hash of its file, which is all that the choice looks at."""

    @property
    def sha256(self) -> str: ...


def wanted(heldout: float, pictures: int, folder: str) -> int:
    """How many of `pictures` to hold out: a share below 1, at least one; or a count. UserError where none is left."""
    if heldout >= 1 and heldout != int(heldout):
        raise UserError(f"dataset.heldout = {heldout:g}: give a share below 1 or a whole number of pictures")
    count = int(heldout) if heldout >= 1 else max(1, round(heldout * pictures)) if heldout else 0
    if count and count >= pictures:
        raise UserError(f"dataset.heldout = {heldout:g}: {folder} has {pictures} pictures; none would be trained on")
    return count


def choose(examples: Sequence[Known], groups: Groups, count: int, seed: int) -> set[int]:
    """The indices of `count` pictures to hold out, or fewer where copies do not let it come out even.

    `groups` are the sets of pictures that are copies of each other, those alone being a set of one; a set is held out
    as a whole or not at all. The order in which sets are taken depends on the seed and their contents, so that another
    name, place or picture beside them changes little.
    """
    held: set[int] = set()
    for group in sorted(groups, key=lambda group: _lot(examples, group, seed)):
        if len(held) + len(group) <= count:
            held |= set(group)
    return held


def _lot(examples: Sequence[Known], group: Sequence[int], seed: int) -> tuple[int, int]:
    content = min(examples[index].sha256 for index in group)
    return chance.key(seed, "held out", int(content[:16], 16)), min(group)
