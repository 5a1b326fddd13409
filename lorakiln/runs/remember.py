"""A run writes itself into run.json and the ledger: that it goes on, and how it ended."""

import os
import platform
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from lorakiln.base.errors import UserError
from lorakiln.base.ledger import process_mark
from lorakiln.runs.folder import RunFolder
from lorakiln.runs.machine import device_name, peak_memory
from lorakiln.runs.parts import Parts
from lorakiln.runs.reporter import Stages
from lorakiln.runs.row import added, facts_of, now, save_row
from lorakiln.train.events import read_events
from lorakiln.train.loop import Stop

PRICE = "KILN_PRICE"  # what an hour of this machine costs
TAGS = "KILN_TAGS"  # words for the ledger, with commas between; a sweep gives its runs its name


@dataclass
class Outcome:
    """Filled by the run: why it stopped before its end, if it did."""

    stop: Stop | None = None


@contextmanager
def remembered(folder: RunFolder, parts: Parts, stages: Stages, start: int) -> Generator[Outcome]:
    """Around a run from after step `start`: its row says `running`, then how it ended, an exception included.

    Where a run was resumed, the seconds of all its parts are kept. The LoRA's header knows nothing of this.
    """
    if not parts.world.leads:
        yield Outcome()
        return
    warn, tags = stages.reporter.note, [tag for tag in os.environ.get(TAGS, "").split(",") if tag]
    old, outcome = facts_of(folder), Outcome()
    folder.record(**_beginning(parts, old, warn))
    save_row(folder, warn, tags)
    status, error = "failed", ""
    try:
        yield outcome
        error = outcome.stop.reason if outcome.stop else ""
        status = "finished" if outcome.stop is None or outcome.stop.complete else "stopped"
    except KeyboardInterrupt:
        status, error = "stopped", "interrupted"
        raise
    except BaseException as problem:
        error = f"{problem}".partition("\n")[0] or type(problem).__name__
        raise
    finally:
        try:
            folder.record(**_ending(folder, parts, stages, start), status=status, error=error)
            save_row(folder, warn, tags)
        except UserError as problem:  # a full disk: what stopped the run is the error to be shown
            warn(str(problem))


def _beginning(parts: Parts, old: dict[str, Any], warn: Callable[[str], None]) -> dict[str, Any]:
    """What is known before the first step. `past` are the seconds of the parts of this run that were before."""
    facts: dict[str, Any] = {
        "id": old.get("id") or uuid.uuid4().hex[:12],
        "started": old.get("started") or now(),
        "status": "running",
        "error": "",
        "finished": "",
        "past": added(old.get("past", {}), old.get("seconds", {})),
        "seconds": {},
        "dataset": parts.dataset.digest,
        "pictures": len(parts.dataset.examples),
        "device": device_name(parts.family.device),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "host": platform.node(),
        "process": process_mark(os.getpid()),
    }
    told = os.environ.get(PRICE, "")
    try:
        return facts | ({"price": float(told)} if told else {})
    except ValueError:
        warn(f"{PRICE} = {told}: not a number, so the cost of this run is not known")
        return facts


def _ending(folder: RunFolder, parts: Parts, stages: Stages, start: int) -> dict[str, Any]:
    last = max((event["step"] for event in read_events(folder.events)), default=0)
    return {
        "finished": now(),
        "seconds": {name: round(seconds, 3) for name, seconds in stages.seconds.items()},
        "timed_steps": facts_of(folder).get("timed_steps", 0) + max(0, last - start),
        "peak_memory": peak_memory(parts.family.device),
    }
