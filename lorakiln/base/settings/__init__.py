"""Every setting once: its type, default, range, help and effect. One file a section; the recipe holds them all."""

from lorakiln.base.settings.adapter import Adapter
from lorakiln.base.settings.cache import Cache
from lorakiln.base.settings.dataset import Dataset
from lorakiln.base.settings.field import EFFECTS, Section, setting
from lorakiln.base.settings.judge import Judge
from lorakiln.base.settings.loss import Loss
from lorakiln.base.settings.optim import Optim
from lorakiln.base.settings.recipe import Recipe, sections
from lorakiln.base.settings.sample import Sample
from lorakiln.base.settings.save import Save
from lorakiln.base.settings.train import Train

__all__ = [
    "EFFECTS",
    "Adapter",
    "Cache",
    "Dataset",
    "Judge",
    "Loss",
    "Optim",
    "Recipe",
    "Sample",
    "Save",
    "Section",
    "Train",
    "sections",
    "setting",
]
