"""A run is one complete recipe: what is trained, on which pictures, from which base, and what is kept of it."""

from collections.abc import Iterator
from typing import Literal

from lorakiln.base.settings.adapter import Adapter
from lorakiln.base.settings.cache import Cache
from lorakiln.base.settings.dataset import Dataset
from lorakiln.base.settings.field import Section, setting
from lorakiln.base.settings.judge import Judge
from lorakiln.base.settings.loss import Loss
from lorakiln.base.settings.optim import Optim
from lorakiln.base.settings.sample import Sample
from lorakiln.base.settings.save import Save
from lorakiln.base.settings.train import Train


class Recipe(Section):
    """Everything a run is made from. `runs.build` is the only place that turns it into objects."""

    base: str = setting(
        ..., "The model to train on: an SDXL .safetensors file, a diffusers folder, a cached hub id, or 'starter'.",
        effect="loss",
    )  # fmt: skip
    vae: str = setting("", "A VAE file or folder to use instead of the base's own.", effect="loss")
    prediction: Literal["auto", "epsilon", "v"] = setting(
        "auto", "What the base predicts; 'auto' reads it from the file and checks it with one forward.", effect="loss"
    )
    ztsnr: Literal["auto", "on", "off"] = setting(
        "auto", "Whether the base's noise schedule ends at zero signal; 'auto' reads it from the file.", effect="loss"
    )
    name: str = setting("", "Name of the run folder and of the LoRA; empty: the recipe file's name.", effect="files")
    runs: str = setting("runs", "Folder in which run folders are made.", effect="files")
    init: str = setting("", "A LoRA file to continue from; empty: start from nothing.", effect="loss")
    seed: int = setting(42, "The one seed that every draw of the run is a function of.", effect="loss", low=0)
    device: str = setting("auto", "'cpu', 'cuda', 'cuda:1', or 'auto': the first GPU if there is one.", effect="memory")
    purpose: Literal["", "character", "style", "concept"] = setting(
        "", "What the LoRA is for; some rules of 'kiln check' differ by it.", effect="log"
    )
    ignore: list[str] = setting(list, "Rules of 'kiln check' that do not count here, e.g. ['K004'].", effect="log")
    adapter: Adapter = Adapter()
    optim: Optim = Optim()
    train: Train = Train()
    loss: Loss = Loss()
    save: Save = Save()
    sample: Sample = Sample()
    judge: Judge = Judge()
    cache: Cache = Cache()
    dataset: list[Dataset] = setting(..., "One table for each folder of pictures.", effect="loss")


def sections() -> Iterator[tuple[str, type[Section]]]:
    """(TOML table name, model) for each section, the top level first under the empty name."""
    yield "", Recipe
    for name, field in Recipe.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield name, field.annotation
    yield "dataset", Dataset
