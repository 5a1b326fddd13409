"""Which pictures are worth comparing closely: each view of each picture is looked up among all whole pictures.

Sixteen tables hold the whole pictures, and their mirror images, under pieces of their bits; a view is compared only
with what shares a piece with it. A piece grows by one bit each time the set doubles, so that a look-up meets about
as many pictures in a large set as in a small one, and the work grows with the set and not with its square.
"""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from lorakiln.curate import views

TABLES = 16
LIKE = 0.85  # cosine from which two pictures are compared closely
_COMPARED = 2  # words of 64 bits that are compared
_FAR = 30  # of those 128 bits: an angle of 0.74, wider than LIKE's 0.55 by what chance does to bits
_BLOCK = 256  # pictures whose views are looked up at once: 51 views each, some 20 MB
_MOST = 30  # closest pictures that are looked at for each picture

Report = Callable[[int, int], None]


def quiet(done: int, total: int) -> None:
    """The `Report` that says nothing."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pairs in arrays of one length: picture `whole`, all of it (mirrored where `mirrored`), looks like `view` of
    picture `part_of`, as far as `likeness` (cosine) says."""

    part_of: np.ndarray
    whole: np.ndarray
    view: np.ndarray
    mirrored: np.ndarray
    likeness: np.ndarray


@dataclass(frozen=True, slots=True)
class _Tables:
    """Whole pictures under pieces of their bits. Entries 0..N-1 are the pictures, N..2N-1 their mirror images."""

    spectra: np.ndarray
    centre: np.ndarray
    width: int
    bits: list[np.ndarray]  # in each table's order, so that what shares a piece lies side by side
    order: list[np.ndarray]
    starts: list[np.ndarray]
    sizes: list[np.ndarray]


def find(fields_NLFF: np.ndarray, report: Report = quiet) -> Candidates:
    """Every likely pair among N pictures of L grey fields (uint8), each pair once, likest first."""
    count, layers = fields_NLFF.shape[:2]
    found = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # numpy lets threads work side by side
        for layer in range(layers):
            fields = fields_NLFF[:, layer]
            # a copy that is both cropped and recoloured is found by luma, if it is found
            sides = 1 if layer else len(views.INTERVALS)
            look = functools.partial(_look_up, _build(fields), fields, sides)
            for done, block in enumerate(pool.map(look, range(0, count, _BLOCK)), 1):
                found.append(block)
                report(layer * count + min(done * _BLOCK, count), layers * count)
    return _best([np.concatenate(parts) for parts in zip(*found, strict=True)], count)


def _build(fields_NFF: np.ndarray) -> _Tables:
    count = len(fields_NFF)
    blocks = [views.spectra(fields_NFF[at : at + _BLOCK], 1)[:, 0] for at in range(0, count, _BLOCK)]
    whole = np.concatenate(blocks)
    # a handful of pictures says nothing about what a set has in common
    centre = whole.mean(axis=0) * (count / (count + 20))
    entries = np.concatenate([whole, whole * views.MIRROR])
    entry_bits = views.bits(entries, centre)
    width = int(np.clip(np.ceil(np.log2(2 * count)), 6, 16))
    bits, order, starts, sizes = [], [], [], []
    for table in range(TABLES):
        piece = _piece(entry_bits, table, width)
        order.append(np.argsort(piece, kind="stable").astype(np.int32))
        bits.append(entry_bits[order[-1], :_COMPARED])
        sizes.append(np.bincount(piece, minlength=1 << width).astype(np.int32))
        starts.append((np.cumsum(sizes[-1]) - sizes[-1]).astype(np.int32))
    return _Tables(entries, centre, width, bits, order, starts, sizes)


def _piece(bits: np.ndarray, table: int, width: int) -> np.ndarray:
    return (bits.view(np.uint16)[..., table] & ((1 << width) - 1)).astype(np.int64)


def _look_up(tables: _Tables, fields_NFF: np.ndarray, sides: int, start: int) -> tuple[np.ndarray, ...]:
    """For the pictures from `start`: (picture, entry, view, likeness) of every likely pair."""
    count = len(fields_NFF)
    spectra_MVC = views.spectra(fields_NFF[start : start + _BLOCK], sides)
    shown = spectra_MVC.shape[1]
    asked = views.bits(spectra_MVC, tables.centre).reshape(-1, 4)
    own = np.repeat(np.arange(start, start + len(spectra_MVC), dtype=np.int32), shown)
    empty = ~spectra_MVC.any(axis=2).reshape(-1)
    pairs = []
    for table in range(TABLES):
        piece = _piece(asked, table, tables.width)
        first, sizes = tables.starts[table][piece], tables.sizes[table][piece]
        sizes[empty] = 0
        # where each query's run of entries begins, less how many entries the queries before it have
        shift = first - (np.cumsum(sizes, dtype=np.int32) - sizes)
        at = np.arange(sizes.sum(), dtype=np.int32) + np.repeat(shift, sizes)
        differ = np.zeros(len(at), np.uint8)
        for word in range(_COMPARED):
            differ += np.bitwise_count(np.repeat(asked[:, word], sizes) ^ tables.bits[table][at, word])
        near = np.flatnonzero(differ <= _FAR)
        query = np.searchsorted(np.cumsum(sizes), near, side="right")
        entry = tables.order[table][at[near]].astype(np.int64)
        strange = entry % count != own[query]
        pairs.append(query[strange] * (2 * count) + entry[strange])
    query, entry = np.divmod(np.unique(np.concatenate(pairs)), 2 * count)
    likeness = views.likeness(
        spectra_MVC.reshape(-1, spectra_MVC.shape[2])[query], tables.spectra[entry], tables.centre
    )
    kept = likeness >= LIKE
    query, entry, likeness = query[kept], entry[kept], likeness[kept]
    return query // shown + start, entry, query % shown, likeness.astype(np.float32)


def _best(found: list[np.ndarray], count: int) -> Candidates:
    """Each unordered pair once with its likest view, at most `_MOST` for each picture."""
    part_of, entry, view, likeness = found
    whole, mirrored = entry % count, entry >= count
    order = np.lexsort((view, -likeness))
    low, high = np.minimum(part_of, whole)[order], np.maximum(part_of, whole)[order]
    _, first = np.unique(low * count + high, return_index=True)
    order = order[np.sort(first)]
    seen: dict[int, int] = {}
    kept = []
    for at in order.tolist():
        one, other = int(part_of[at]), int(whole[at])
        if min(seen.get(one, 0), seen.get(other, 0)) < _MOST:
            kept.append(at)
            seen[one], seen[other] = seen.get(one, 0) + 1, seen.get(other, 0) + 1
    at = np.array(kept, int)
    return Candidates(part_of[at], whole[at], view[at], mirrored[at], likeness[at])
