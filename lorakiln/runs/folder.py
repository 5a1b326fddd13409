"""A run's folder: where everything it makes lies, how it is made, and when it may be continued."""

import glob
import json
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorakiln import __version__
from lorakiln.base import recipe as recipes
from lorakiln.base.errors import UserError
from lorakiln.base.files import disk_errors, write_text
from lorakiln.base.settings import Recipe, sections
from lorakiln.train.events import read_events

LENGTH = ("train.epochs", "train.steps")
# what it comes to on this machine is compared with the state (train/basis)
BY_OUTCOME = ("train.precision",)


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run. `name` is also the LoRA's."""

    path: Path
    name: str

    @classmethod
    def of(cls, recipe: Recipe, source: Path) -> "RunFolder":
        """Where the recipe read from `source` trains. Raises UserError for a name that would lead elsewhere."""
        name = recipe.name or source.stem
        if not name.strip(". ") or {"/", "\\"} & set(name):
            raise UserError(f"name = '{name}': it names a folder and a file, so it may hold no / or \\, nor be ..")
        return cls(Path(recipe.runs) / name, name)

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.toml"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def state(self) -> Path:
        return self.path / "state"

    @property
    def lora(self) -> Path:
        return self.path / f"{self.name}.safetensors"

    @property
    def curve(self) -> Path:
        return self.path / "loss.png"

    @property
    def grid(self) -> Path:
        return self.path / "samples.png"

    def checkpoint(self, step: int) -> Path:
        return self.path / "checkpoints" / f"{self.name}-step{step:06d}.safetensors"

    def checkpoints(self) -> list[Path]:
        """The LoRAs that were saved along the way, in the order of their steps."""
        return sorted((self.path / "checkpoints").glob(f"{glob.escape(self.name)}-step*.safetensors"))

    def finished_at(self) -> int | None:
        """The step at whose end the LoRA itself was written; None for a run that was stopped before."""
        return next((event["step"] for event in read_events(self.events) if event["event"] == "end"), None)

    def exists(self) -> bool:
        return self.path.exists() and any(self.path.iterdir())

    def prepare(self, recipe: Recipe, *, resume: bool, overwrite: bool) -> None:
        """Make the folder and write the complete recipe; an existing run is removed only now, with `overwrite`.

        What was told an earlier part of the run is forgotten. Raises UserError where nothing can be written.
        """
        with disk_errors(self.path):
            if not resume:
                self.refuse_existing(overwrite)
                if self.path.exists():
                    shutil.rmtree(self.path)
            self.path.mkdir(parents=True, exist_ok=True)
            for leftover in (*self.path.rglob(".*.tmp"), self.path / "control.jsonl"):  # of a run that was killed
                leftover.unlink(missing_ok=True)
        write_text(self.recipe, recipes.write(recipe))

    def refuse_existing(self, overwrite: bool) -> None:
        """Raise UserError for a folder that is in the way."""
        if self.exists() and not overwrite:
            raise UserError(
                f"{self.path}: this run exists; --resume continues it, --overwrite replaces it, or choose another name"
            )
        if self.exists() and not self.recipe.exists():
            raise UserError(f"{self.path}: not a run folder (it has no recipe.toml), so --overwrite leaves it alone")

    def check_resume(self, recipe: Recipe) -> None:
        """Raise UserError unless `recipe` continues the recipe that this folder was made with."""
        if not self.recipe.exists():
            raise UserError(f"{self.path}: no run to resume; leave out --resume to start it")
        changed = recipes.differences(recipes.read(self.recipe), recipe)
        wrong = [f"{key} was {old!r}, is {new!r}" for key, (old, new) in changed.items() if not may_change(key)]
        if wrong:
            free = ", ".join(key for key in recipes.flatten(recipe) if may_change(key) and "dataset" not in key)
            raise UserError(f"--resume: {'; '.join(wrong)}: a resumed run keeps its settings; these may change: {free}")

    def record(self, **facts: Any) -> None:
        """Add to run.json what is true of this machine and hour, and so has no place in the LoRA file."""
        path = self.path / "run.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        known |= {"kiln": __version__, "machine": platform.platform(), "python": platform.python_version(), **facts}
        write_text(path, json.dumps(known, indent=2, sort_keys=True) + "\n")


def may_change(key: str) -> bool:
    """Whether a resumed run may change `section.key`: its length, and what has no part in the weights."""
    if key in LENGTH or key in BY_OUTCOME:
        return True
    section, _, name = key.rpartition(".")
    field = dict(sections())[section.split(".")[0]].model_fields[name]
    extra = field.json_schema_extra
    return isinstance(extra, dict) and extra["effect"] in ("files", "log", "memory")
