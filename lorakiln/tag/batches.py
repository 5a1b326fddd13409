"""Tagging many files: pictures are decoded by other threads while the model works on those before them."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from lorakiln.base import images
from lorakiln.base.errors import UserError

T = TypeVar("T")
Report = Callable[[int, int], None]


def ahead(
    files: Sequence[Path], prepare: Callable, batch: int, failed: Callable[[Path, str], None]
) -> Iterator[tuple[list[Path], list]]:
    """Batches of (files, prepared pictures) in order, two batches ahead; unreadable files go to `failed`."""

    def one(path: Path) -> object:
        try:
            return prepare(images.open_picture(path))
        except UserError as error:
            return error

    waiting: deque[tuple[Path, Future]] = deque()
    rest = iter(files)
    paths: list[Path] = []
    ready: list = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        while True:
            while len(waiting) < 2 * batch and (path := next(rest, None)) is not None:
                waiting.append((path, pool.submit(one, path)))
            if not waiting:
                break
            path, future = waiting.popleft()
            result = future.result()
            if isinstance(result, UserError):
                failed(path, str(result))
                continue
            paths.append(path)
            ready.append(result)
            if len(ready) == batch:
                yield paths, ready
                paths, ready = [], []
    if ready:
        yield paths, ready
