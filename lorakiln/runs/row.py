"""A run folder's row in the ledger: what its recipe, run.json, events and verdict say, without loading torch."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lorakiln.base import recipe as recipes
from lorakiln.base.errors import UserError
from lorakiln.base.ledger import Entry, Ledger
from lorakiln.runs.folder import RunFolder
from lorakiln.train.events import read_events

PATIENCE = 5.0  # seconds that a training waits for a ledger that another program holds
SILENT = 3600  # seconds without an event after which a run that another machine began is taken for dead


def run_folder(path: Path) -> RunFolder:
    """The run in folder `path`. Raises UserError where there is none."""
    if not (path / "recipe.toml").exists():
        raise UserError(f"{path}: not a run folder (it has no recipe.toml)")
    return RunFolder(path, recipes.read(path / "recipe.toml").name or path.name)


def row_of(folder: RunFolder) -> Entry:
    """The run as its folder tells it. Raises UserError for a folder whose files cannot be read."""
    recipe = recipes.read(folder.recipe)
    facts, events, verdict = facts_of(folder), list(read_events(folder.events)), judged(folder)
    losses = [event["loss"] for event in events if event["event"] == "step"]
    return Entry(
        id=facts.get("id") or _old_id(folder),
        name=folder.name,
        status=_status(folder, facts, events),
        error=facts.get("error", ""),
        verdict=verdict.word,
        base=recipe.base,
        purpose=recipe.purpose,
        dataset=facts.get("dataset", ""),
        pictures=facts.get("pictures", 0),
        steps=max((event["step"] for event in events), default=0),
        timed_steps=facts.get("timed_steps", 0),
        loss=settled_loss(losses) if losses else None,
        seconds=_seconds(facts, verdict),
        peak_memory=facts.get("peak_memory"),
        price=facts.get("price"),
        device=facts.get("device", ""),
        started=facts.get("started") or _hour(folder.recipe.stat().st_mtime),
        finished=facts.get("finished", ""),
        host=facts.get("host", ""),
        process=facts.get("process", ""),
        folder=str(folder.path.resolve()),
        recipe=recipe.model_dump(),
    )


def save_row(folder: RunFolder, warn: Callable[[str], None], tags: Sequence[str] = ()) -> None:
    """Write the run's row. A ledger that is locked or cannot be written is one warning, and never an error."""
    ledger = Ledger(patience=PATIENCE)
    if ledger.path is None:
        return
    try:
        ledger.save([replace(row_of(folder), tags=tuple(tags))])
    except UserError as error:
        warn(f"{error}; this run is not remembered: kiln runs rebuild {folder.path} does it later")


def facts_of(folder: RunFolder) -> dict[str, Any]:
    """What run.json says: machine, hours, seconds; empty where there is none."""
    return _json(folder.path / "run.json")


@dataclass(frozen=True, slots=True)
class Judged:
    """What verdict.json says: the run's word, and its best checkpoint with the gain and strength it is best at.

    Everything is empty where nobody judged it; `seconds` is what judging took.
    """

    word: str = ""
    gain: float | None = None
    step: int | None = None
    strength: float | None = None
    seconds: float = 0.0


def judged(folder: RunFolder) -> Judged:
    """What `kiln judge` found. Raises UserError for a verdict.json that cannot be read."""
    table = _json(folder.path / "verdict.json")
    if not isinstance(table.get("verdict"), str):
        return Judged()
    best = table.get("best") or {}
    row = next((one for one in table.get("checkpoints", []) if one.get("name") == best.get("name")), {})
    gain = (row.get("gain") or {}).get("mean")
    return Judged(table["verdict"], gain, best.get("step"), best.get("strength"), table.get("seconds") or 0.0)


def gain_of(folder: RunFolder) -> float | None:
    """The best gain on held-out pictures that was measured while it trained; None where none was."""
    gains = [event["gain"] for event in read_events(folder.events) if event["event"] == "judge"]
    return max(gains, default=None)


def settled_loss(losses: Sequence[float]) -> float:
    """Mean over the last tenth of the steps, but ten at least: single losses jump with their timesteps."""
    last = losses[-max(10, len(losses) // 10) :]
    return sum(last) / len(last)


def now() -> str:
    return _hour(time.time())


def _hour(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _status(folder: RunFolder, facts: dict[str, Any], events: list[dict[str, Any]]) -> str:
    """Its last word, but for a run that was killed before it could say one."""
    if any(event["event"] == "end" for event in events):
        return "finished"
    told = facts.get("status", "stopped")
    quiet = folder.events.exists() and time.time() - folder.events.stat().st_mtime > SILENT
    return "killed" if told == "running" and quiet else told


def _seconds(facts: dict[str, Any], verdict: Judged) -> dict[str, float]:
    """By stage, over all parts of the run, and of judging it."""
    judging = {"judge": verdict.seconds} if verdict.seconds else {}
    return added(added(facts.get("past", {}), facts.get("seconds", {})), judging)


def _old_id(folder: RunFolder) -> str:
    """An id for a run of a Kiln that gave none: the same each time, another for another recipe or name."""
    text = f"{folder.name}\n{folder.recipe.read_text(encoding='utf-8')}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def added(first: dict[str, float], second: dict[str, float]) -> dict[str, float]:
    """Seconds by stage of two parts of a run together."""
    return {name: round(first.get(name, 0.0) + second.get(name, 0.0), 3) for name in {**first, **second}}


def _json(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable ({error})") from None
    return table if isinstance(table, dict) else {}
