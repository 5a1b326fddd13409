"""What `kiln judge` judges: a run's checkpoints or a LoRA from elsewhere, with base and pictures to judge them by."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorakiln.advise.pictures import trigger_place
from lorakiln.base import recipe as recipes
from lorakiln.base.errors import UserError
from lorakiln.base.files import sha256
from lorakiln.base.settings import Dataset, Recipe
from lorakiln.data.dataset import Example, scan
from lorakiln.families.family import Family
from lorakiln.runs.build import dataset_spec, load_family
from lorakiln.runs.folder import RunFolder
from lorakiln.runs.machine import choose_device, load_base
from lorakiln.runs.pictures import read_pictures
from lorakiln.runs.reporter import Stages
from lorakiln.tag import captions


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture to judge by, with its caption."""

    path: Path
    caption: str


@dataclass(frozen=True, slots=True)
class Subject:
    """`loras` are (name, step, file), the last one the finished LoRA. `unseen` may be empty, `trained` too."""

    name: str
    family: Family
    base: str
    loras: tuple[tuple[str, int, Path], ...]
    trained: tuple[Shown, ...]
    unseen: tuple[Shown, ...]
    trigger: str
    prompts: tuple[str, ...]
    negative: str
    cfg: float
    rescale: float
    seed: int
    folder: Path
    recipe: Recipe | None = None
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


def of_run(run: Path, unseen: Path | None, stages: Stages) -> Subject:
    """A run folder's. Raises UserError where it holds no LoRA yet, or its base or pictures are gone."""
    if not (run / "recipe.toml").exists():
        raise UserError(f"{run}: not a run folder (it has no recipe.toml) and no .safetensors file")
    recipe = recipes.read(run / "recipe.toml")
    folder = RunFolder(run, recipe.name or run.resolve().name)
    loras = checkpoints(folder)
    with stages.stage("load base"):
        family = load_family(recipe, choose_device(recipe.device))
    with stages.stage("scan pictures"):
        dataset, heldout = read_pictures(recipe, [dataset_spec(table, family.resolution) for table in recipe.dataset])
        other = _scanned(unseen, family) if unseen else tuple(map(_shown, heldout))
    notes = []
    known = _digest(folder)
    if known and known != dataset.digest:
        notes.append(
            "the pictures or captions changed since the run: what it trained on is judged by what is there now"
        )
    sample = recipe.sample
    trained = tuple(map(_shown, (one for one in dataset.examples if one.spec.weight >= 1)))
    return Subject(
        folder.name, family, recipe.base, loras, trained, other, _trigger(trained), tuple(sample.prompts),
        sample.negative, sample.cfg, sample.rescale, recipe.seed, run, recipe, tuple(notes),
    )  # fmt: skip


def of_file(
    lora: Path, base: str, pictures: Path, unseen: Path | None, folder: Path, cfg: float, stages: Stages
) -> Subject:
    """A LoRA's that was trained elsewhere, on `pictures`. Raises UserError for one that does not fit the base."""
    if not lora.is_file():
        raise UserError(f"{lora}: no such file")
    with stages.stage("load base"):
        family = load_base(base, choose_device("auto"))
    with stages.stage("scan pictures"):
        trained, other = _scanned(pictures, family), _scanned(unseen, family) if unseen else ()
    return Subject(
        lora.stem, family, base, ((lora.name, 0, lora),), trained, other, _trigger(trained), (), "", cfg,
        0.7 if family.schedule.prediction == "v" else 0.0, 42, folder,
    )  # fmt: skip


def checkpoints(folder: RunFolder) -> tuple[tuple[str, int, Path], ...]:
    """(name, step, file) of every checkpoint in order, the finished LoRA last, and once if it is one of them."""
    found = [(path.stem, int(path.stem.rpartition("-step")[2]), path) for path in folder.checkpoints()]
    if not folder.lora.exists():
        if not found:
            raise UserError(f"{folder.path}: holds no LoRA yet; let the run end, or 'kiln tell {folder.path} save'")
        return tuple(found)
    own = sha256(folder.lora)
    last = next((step for _, step, path in reversed(found) if sha256(path) == own), None)
    if last is not None:
        return tuple([one for one in found if one[1] < last] + [(folder.lora.stem, last, folder.lora)])
    after = found[-1][1] + 1 if found else 0
    return (*found, (folder.lora.stem, folder.finished_at() or after, folder.lora))


def _digest(folder: RunFolder) -> str:
    from lorakiln.adapters.files.read import read

    return read(checkpoints(folder)[-1][2]).metadata.get("lorakiln.dataset_hash", "")


def _scanned(folder: Path, family: Family) -> tuple[Shown, ...]:
    table = Dataset(folder=str(folder), missing="empty", bucket=False)
    return tuple(map(_shown, scan([dataset_spec(table, family.resolution)], captions.parse_folder).examples))


def _shown(example: Example) -> Shown:
    return Shown(example.path, example.spec.plain(example.caption, 0))


def _trigger(trained: Sequence[Shown]) -> str:
    place = trigger_place([one.caption for one in trained if one.caption])
    return place[0] if place else ""
