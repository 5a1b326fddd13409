"""`kiln sweep`: the same recipe with every combination of some values, each with several seeds."""

import hashlib
import importlib
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lorakiln.base import recipe as recipes
from lorakiln.base.errors import UserError
from lorakiln.base.settings import sections
from lorakiln.lab.trial import Outcome, Trial, name_of, outcome_of, refuse_changed, run_trial

RESERVED = ("seed", "name", "runs")


def values_of(text: str) -> tuple[str, list[str]]:
    """'optim.lr=6e-5,1e-4' -> ('optim.lr', ['6e-5', '1e-4']); commas inside brackets and quotes divide nothing."""
    key, found, rest = text.partition("=")
    values, depth, quoted = [""], 0, ""
    for letter in rest:
        if letter in "\"'" and quoted in ("", letter):
            quoted = "" if quoted else letter
        elif not quoted:
            depth += (letter in "[{") - (letter in "]}")
        if letter == "," and not depth and not quoted:
            values.append("")
        else:
            values[-1] += letter
    values = [value.strip() for value in values]
    if not found or not all(values):
        raise UserError(f"--over {text}: write it as section.key=value,value")
    if len(set(values)) < len(values):
        raise UserError(f"--over {text}: a value stands there twice")
    return key.strip(), values


def plan(recipe: Path, over: Sequence[str], seeds: int, changes: Sequence[str], out: Path) -> list[Trial]:
    """Every trial, seed by seed, so that a sweep cut short has compared everything with the seeds it had.

    Raises UserError for a recipe or a combination that is none, before anything is trained or written.
    """
    pairs = [values_of(text) for text in over]
    keys = [key for key, _ in pairs]
    if not pairs:
        raise UserError("nothing to sweep: give --over section.key=value,value")
    for key in keys:
        if key in RESERVED or keys.count(key) > 1:
            raise UserError(f"--over {key}: " + ("the sweep sets it itself" if key in RESERVED else "given twice"))
    whole = recipes.read(recipe, changes)
    combinations = [tuple(zip(keys, row, strict=True)) for row in itertools.product(*(values for _, values in pairs))]
    for combination in combinations:
        recipes.read(recipe, [*changes, *(f"{key}={value}" for key, value in combination)])
    refuse_changed(out / "recipe.toml", recipes.write(whole))
    places = str(out.resolve() / "recipe.toml"), str(out.resolve() / "runs"), str(Path.cwd())
    trials = []
    for seed in range(whole.seed, whole.seed + seeds):
        for combination in combinations:
            mark = hashlib.sha256(json.dumps(combination).encode()).hexdigest()[:6]
            name = name_of([value for _, value in combination], seed, mark)
            trials.append(Trial(name, combination, seed, *places, f"sweep:{out.name}"))
    return trials


def run_here(trials: Iterable[Trial], deadline: float | None, retry: bool) -> Iterator[Outcome]:
    """One after another in this machine."""
    for trial in trials:
        yield run_trial(trial, deadline, retry)


def run_on_ray(
    trials: Sequence[Trial], deadline: float | None, retry: bool, address: str, gpus: float
) -> Iterator[Outcome]:
    """As many at once as the cluster holds; each worker needs the same Kiln, pictures, base and folders as here."""
    try:
        ray = importlib.import_module("ray")
    except ImportError:
        raise UserError(
            "--address needs Ray, which is not installed: pip install 'lorakiln[sweep]'; without --address the trials "
            "run here, one after another"
        ) from None
    try:
        ray.init(None if address == "local" else address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"--address {address}: no such Ray cluster ({str(error).partition(chr(10))[0]})") from None
    try:
        work = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(run_trial)
        waiting = {work.remote(trial, deadline, retry): trial for trial in trials}
        while waiting:
            (done, *_), _ = ray.wait(list(waiting), num_returns=1)
            trial = waiting.pop(done)
            try:
                yield ray.get(done)
            except ray.exceptions.RayError as error:  # a machine that went away: its trial is kept with the error
                lost = f"lost: {str(error).strip().partition(chr(10))[0]}"
                yield Outcome(trial.name, trial.changes, trial.seed, "failed", lost)
    finally:
        ray.shutdown()


def deadline_of(minutes: float, spend: float, price: float, now: Callable[[], float] = time.time) -> float | None:
    """When the sweep stops, seconds since 1970: after `minutes`, or when `spend` is used up at `price` an hour."""
    if spend and not price:
        raise UserError("--spend: needs --price, what an hour of this machine costs")
    limits = [minutes * 60] if minutes else []
    limits += [spend / price * 3600] if spend else []
    return now() + min(limits) if limits else None


def state_of(trials: Iterable[Trial]) -> list[Outcome]:
    """What is known of every trial now."""
    return [outcome_of(trial) for trial in trials]


def loss_settings(trials: Sequence[Trial]) -> list[str]:
    """The swept settings that change what the loss is, so that losses cannot tell which value is better."""
    effects: dict[str, Any] = {}
    for section, model in sections():
        for key, field in model.model_fields.items():
            if isinstance(field.json_schema_extra, dict):
                effects[f"{section}.{key}".lstrip(".")] = field.json_schema_extra["effect"]
    keys = [key for key, _ in trials[0].changes] if trials else []
    plain = {key: ".".join(part for part in key.split(".") if not part.isdigit()) for key in keys}
    return [key for key in keys if effects.get(plain[key]) == "loss"]
