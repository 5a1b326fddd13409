"""Encoded pictures and captions, kept under a key of everything that shaped them, so that nothing stale is ever read.

Kept for a picture is the *posterior* (mean and log-variance of the VAE), from which every visit draws its own latent.
B batch, C latent channels, H and W latent height and width.
"""

import collections
import concurrent.futures
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lorakiln.base import files, images
from lorakiln.base.errors import UserError
from lorakiln.base.records import Size
from lorakiln.data.dataset import Shot
from lorakiln.data.store import Tensors, key_of, open_store

FORMAT_VERSION = 1
Encode = Callable[[Tensor], tuple[Tensor, Tensor]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Filled:
    """What `fill` did: entries found as they were, and entries encoded now (missing or damaged)."""

    found: int
    encoded: int


class LatentCache:
    """Posteriors of pictures, on disk, in memory, or encoded anew at each read (`where="off"`).

    `encode(pixels_BCHW in -1..1, fp32, CPU) -> (mean_BCHW, logvar_BCHW)`; `vae` is the digest of its weights and
    `precision` the dtype it computes in. Entries are stored as fp32 unless `dtype` says otherwise.
    """

    def __init__(
        self,
        where: Path | Literal["memory", "off"],
        encode: Encode,
        *,
        vae: str,
        precision: str = "float32",
        dtype: torch.dtype = torch.float32,
    ):
        self.encode, self.vae, self.precision, self.dtype = encode, vae, precision, dtype
        self.store = open_store(where)

    def key(self, shot: Shot) -> str:
        """The entry's name: changes with the picture, how it is cut and decoded, and what encodes it."""
        crop = shot.crop
        return key_of(
            {
                "format": FORMAT_VERSION,
                "decoder": images.DECODER_VERSION,
                "filter": images.RESIZE_FILTER,
                "picture": shot.sha256,
                "background": shot.background,
                "resized": crop.resized,
                "box": (crop.left, crop.top, *crop.target),
                "flipped": crop.flipped,
                "vae": self.vae,
                "precision": self.precision,
                "dtype": str(self.dtype),
            }
        )

    def fill(
        self, shots: Iterable[Shot], *, batch: int = 1, threads: int = 2, progress: Progress | None = None
    ) -> Filled:
        """Encode what is missing, decoding pictures ahead in `threads`; `progress(done, total)` after each batch.

        With `batch` 1 an entry depends on its key alone. A larger batch is faster for small pictures, but the last
        bits of an entry then depend on its neighbours; to keep an interrupted fill equal to a whole one, batches are
        cut from all of `shots` and one with any entry missing is encoded whole.

        Where nothing is kept, pictures are only decoded, so that a bad one is found before training.

        Raises UserError naming a picture that cannot be decoded or whose latents are not finite.
        """
        if self.store is None:
            files_once = {shot.sha256: shot for shot in shots}
            for done, _ in enumerate(_decoded(_groups(files_once, 1), files_once, threads), start=1):
                if progress:
                    progress(done, len(files_once))
            return Filled(0, 0)
        unique = {self.key(shot): shot for shot in shots}
        missing = self._missing(unique, threads)
        groups = [group for group in _groups(unique, batch) if missing.intersection(group)]
        done = len(unique) - len(missing)
        for group, pixels in _decoded(groups, unique, threads):
            for key, entry in zip(group, self._encode([unique[key] for key in group], pixels), strict=True):
                if key in missing:
                    self.store.put(key, entry)
                    done += 1
            if progress:
                progress(done, len(unique))
        return Filled(len(unique) - len(missing), len(missing))

    def read(self, shot: Shot) -> tuple[Tensor, Tensor]:
        """(mean_CHW, logvar_CHW) in fp32; encoded now where the entry is missing or damaged."""
        key = self.key(shot)
        found = None if self.store is None else self.store.get(key)
        if found is None:
            found = self._encode([shot], [_pixels(shot)])[0]
            if self.store is not None:
                self.store.put(key, found)
        return found["mean"].float(), found["logvar"].float()

    def _missing(self, keys: Iterable[str], threads: int) -> set[str]:
        """Keys with no whole entry; each is read, since one that was damaged is made again before training."""
        store, keys = self.store, list(keys)
        assert store is not None
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            whole = pool.map(lambda key: store.get(key) is not None, keys)
            return {key for key, found in zip(keys, whole, strict=True) if not found}

    def _encode(self, shots: Sequence[Shot], pixels: Sequence[np.ndarray]) -> list[Tensors]:
        """One entry a shot, on the CPU, in the stored dtype."""
        try:
            with torch.no_grad():
                mean_BCHW, logvar_BCHW = self.encode(torch.from_numpy(np.stack(pixels)))
        except UserError as error:
            raise UserError(f"{', '.join(str(shot.path) for shot in shots)}: {error}") from None
        entries = []
        for shot, mean_CHW, logvar_CHW in zip(shots, mean_BCHW, logvar_BCHW, strict=True):
            entry = {"mean": mean_CHW, "logvar": logvar_CHW}
            entry = {name: tensor.detach().to("cpu", self.dtype) for name, tensor in entry.items()}
            if not all(torch.isfinite(tensor).all() for tensor in entry.values()):
                raise UserError(
                    f"{shot.path}: the VAE made NaN or infinite latents of it at {self.precision}; "
                    "name another VAE (setting vae)"
                )
            entries.append(entry)
        return entries


class TextCache:
    """What frozen text encoders made of a caption: any dict of tensors, under its token ids and the encoders' digest.

    `encode(captions) -> one dict of tensors each` is called with at most `batch` captions, and must give each what it
    would have given it alone. `tokens(caption)` names it: its token ids as text. `where` is a folder, "off", or
    "memory" of at most `limit` bytes (0: no limit), where the longest unused goes first.
    """

    def __init__(
        self,
        where: Path | Literal["memory", "off"],
        encode: Callable[[list[str]], Sequence[Tensors]],
        *,
        tokens: Callable[[str], str],
        encoders: str,
        limit: int = 0,
        batch: int = 1,
    ):
        self.encode, self.encoders, self.batch = encode, encoders, batch
        self.tokens = functools.lru_cache(2**16)(tokens)
        self.store = open_store(where, limit)

    def key(self, caption: str) -> str:
        """The entry's name: changes with the token ids and the encoders."""
        return key_of({"format": FORMAT_VERSION, "tokens": self.tokens(caption), "encoders": self.encoders})

    def fill(self, captions: Iterable[str], progress: Progress | None = None) -> Filled:
        """Encode the captions that are missing, each once, in the order in which they will be used.

        Where they do not all fit into memory the first do, and stay; the others are encoded when they are read.
        """
        if self.store is None:
            return Filled(0, 0)
        unique = {self.key(caption): caption for caption in captions}
        self.store.need(unique)
        missing = [key for key in unique if self.store.get(key) is None]
        found, encoded = len(unique) - len(missing), 0
        for start in range(0, len(missing), self.batch):
            keys = missing[start : start + self.batch]
            entries = self._encode([unique[key] for key in keys])
            kept = [self.store.put(key, entry) for key, entry in zip(keys, entries, strict=True)]
            encoded += sum(kept)
            if not all(kept):
                break
            if progress:
                progress(found + encoded, len(unique))
        return Filled(found, encoded)

    def read(self, caption: str) -> Tensors:
        """The caption's tensors, on the CPU; encoded now where they are missing or were dropped for space."""
        if self.store is None:
            return self._encode([caption])[0]
        key = self.key(caption)
        found = self.store.get(key)
        if found is None:
            found = self._encode([caption])[0]
            self.store.put(key, found)
        return found

    def _encode(self, captions: list[str]) -> list[Tensors]:
        entries = [{name: tensor.detach().cpu() for name, tensor in entry.items()} for entry in self.encode(captions)]
        for caption, entry in zip(captions, entries, strict=True):
            if not all(torch.isfinite(tensor).all() for tensor in entry.values()):
                raise UserError(
                    f"caption '{caption[:60]}': the text encoders gave NaN or infinite states; "
                    "set train.precision = 'fp32'"
                )
        return entries


def _pixels(shot: Shot) -> np.ndarray:
    """pixels_CHW of a shot; UserError where the file is no longer the one that was measured, whose hash is the key."""
    if files.sha256(shot.path) != shot.sha256:
        raise UserError(f"{shot.path}: was changed after it was measured; start again")
    return images.to_pixels(images.open_picture(shot.path, shot.background), shot.crop)


def _groups(shots: dict[str, Shot], batch: int) -> list[list[str]]:
    """Keys in batches of one bucket each, in the order in which the buckets are first met."""
    buckets: dict[Size, list[str]] = {}
    for key, shot in shots.items():
        buckets.setdefault(shot.crop.target, []).append(key)
    return [keys[at : at + batch] for keys in buckets.values() for at in range(0, len(keys), batch)]


def _decoded(
    groups: Sequence[list[str]], shots: dict[str, Shot], threads: int
) -> Iterator[tuple[list[str], list[np.ndarray]]]:
    """Each group with its pixels_CHW, decoded in `threads` while the group before it is encoded."""
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        waiting: collections.deque[tuple[list[str], list[concurrent.futures.Future[np.ndarray]]]] = collections.deque()
        try:
            for group in groups:
                waiting.append((group, [pool.submit(_pixels, shots[key]) for key in group]))
                if len(waiting) > threads:
                    yield _taken(*waiting.popleft())
            while waiting:
                yield _taken(*waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _taken(group: list[str], futures: Sequence[concurrent.futures.Future[np.ndarray]]):
    return group, [future.result() for future in futures]
