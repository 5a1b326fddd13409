"""Every setting once: its type, default, range, help and effect. One file a section; the recipe holds them all."""

from lorakiln.base.settings.field import EFFECTS, Section, setting
from lorakiln.base.settings.recipe import Recipe, sections

__all__ = ["EFFECTS", "Recipe", "Section", "sections", "setting"]
