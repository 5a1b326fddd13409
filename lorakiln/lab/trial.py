"""One training of a sweep: started as a process, stopped when its time is over, and what came of it."""

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lorakiln.base.errors import UserError
from lorakiln.base.files import write_text
from lorakiln.base.ledger import Entry, process_mark
from lorakiln.runs.folder import RunFolder
from lorakiln.runs.row import gain_of, row_of, run_folder

PATIENCE = 120  # seconds that a training has to save its state after it was asked to stop


@dataclass(frozen=True, slots=True)
class Trial:
    """What is trained: the sweep's recipe with `changes` (setting, value as written) and a seed.

    `recipe` and `runs` are whole paths; the paths in the recipe are looked up from `where`.
    """

    name: str
    changes: tuple[tuple[str, str], ...]
    seed: int
    recipe: str
    runs: str
    where: str
    tag: str
    price: float = 0.0  # of an hour; 0: not told

    @property
    def folder(self) -> RunFolder:
        return RunFolder(Path(self.runs) / self.name, self.name)

    def settings(self) -> list[str]:
        """What --set says."""
        own = {"seed": str(self.seed), "name": json.dumps(self.name), "runs": json.dumps(self.runs)}
        return [f"{key}={value}" for key, value in (*self.changes, *own.items())]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended. `status`: finished, stopped (it can go on), failed, running (elsewhere), or waiting."""

    name: str
    changes: tuple[tuple[str, str], ...]
    seed: int
    status: str
    error: str = ""
    verdict: str = ""
    loss: float | None = None
    gain: float | None = None
    seconds: float = 0.0
    cost: float | None = None


def run_trial(trial: Trial, deadline: float | None, retry: bool = False) -> Outcome:
    """Train it until `deadline` (seconds since 1970; None: to its end), and say what came of it.

    A trial that is finished is not trained again, nor one that failed unless `retry`; one that was stopped goes on. It
    runs in a process group of its own, so that Ctrl-C reaches it once, through here, and its state is saved.
    """
    known = outcome_of(trial)
    if known.status in ("finished", "running") or (known.status == "failed" and not retry):
        return known
    if deadline is not None and time.time() >= deadline:
        return known
    _record(trial).unlink(missing_ok=True)
    Path(trial.runs).mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "lorakiln", "train", trial.recipe, "--json", *_how(trial, known)]
    words += [word for change in trial.settings() for word in ("--set", change)]
    environment = os.environ | {"KILN_TAGS": trial.tag} | ({"KILN_PRICE": str(trial.price)} if trial.price else {})
    with _log(trial).open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=log, stdin=subprocess.DEVNULL, env=environment,
            cwd=trial.where, start_new_session=True,
        )  # fmt: skip
        _wait(process, deadline)
    if process.returncode not in (0, 130, 143):
        _keep_error(trial, process.returncode)
    return outcome_of(trial)


def outcome_of(trial: Trial) -> Outcome:
    """What is known of the trial from its folder and from the error that it left."""
    values = trial.name, trial.changes, trial.seed
    record, recipe = _record(trial), trial.folder.recipe
    error = json.loads(record.read_text(encoding="utf-8"))["error"] if record.exists() else ""
    if not recipe.exists():
        return Outcome(*values, "failed" if error else "waiting", error)
    entry = row_of(run_folder(trial.folder.path))
    numbers = entry.verdict, entry.loss, gain_of(trial.folder), entry.time, entry.cost
    return Outcome(*values, _status(entry, failed=bool(error)), error or entry.error, *numbers)


def _status(entry: Entry, *, failed: bool) -> str:
    """A run that nobody saw fail and nobody trains now was stopped, whatever it was last known to do."""
    if failed:
        return "failed"
    if entry.status == "running" and _lives(entry):
        return "running"
    return "finished" if entry.status == "finished" else "stopped"


def table_of(outcome: Outcome) -> dict[str, object]:
    """The outcome for programs."""
    return asdict(outcome) | {"changes": dict(outcome.changes)}


def name_of(values: Sequence[str], seed: int, mark: str) -> str:
    """A folder name that says the values; `mark` tells apart what would look alike."""
    words = "-".join(re.sub(r"[^\w.]+", "-", value).strip("-.")[:24] for value in values)
    return f"{words}-s{seed}-{mark}".lstrip("-")


def _how(trial: Trial, known: Outcome) -> list[str]:
    """Go on from a state, begin anew where there is none or it led to a failure."""
    if not trial.folder.exists():
        return []
    states = trial.folder.state.exists() and any(trial.folder.state.iterdir())
    return ["--resume"] if states and known.status == "stopped" else ["--overwrite"]


def _wait(process: subprocess.Popen[bytes], deadline: float | None) -> None:
    """Until it ends; at the deadline, or when we are interrupted, it is asked to stop and may save its state."""
    try:
        process.wait(None if deadline is None else max(0.0, deadline - time.time()))
    except subprocess.TimeoutExpired:
        _stop(process)
    except BaseException:
        _stop(process)
        raise


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _lives(entry: Entry) -> bool:
    """Whether the process that trains it is still there; of another machine's nothing is known, so it is."""
    if entry.host != platform.node():
        return True
    return bool(entry.process) and process_mark(int(entry.process.partition(":")[0])) == entry.process


def _keep_error(trial: Trial, code: int) -> None:
    lines = [line for line in _log(trial).read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    told = [line.removeprefix("kiln: ") for line in lines if line.startswith("kiln: ")]
    error = (told or lines or [f"ended with exit code {code}"])[-1]
    write_text(_record(trial), json.dumps({"error": error, "exit_code": code}) + "\n")


def _log(trial: Trial) -> Path:
    return Path(trial.runs) / f"{trial.name}.log"


def _record(trial: Trial) -> Path:
    return Path(trial.runs) / f"{trial.name}.error.json"


def refuse_changed(path: Path, text: str) -> None:
    """Write a sweep's recipe, or raise UserError where another one lies there already."""
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise UserError(f"{path.parent}: this sweep was begun with another recipe; choose another --out")
    if not path.exists():
        write_text(path, text)
