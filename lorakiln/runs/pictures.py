"""The pictures of a run: every table scanned, and those held out for the judge set apart with their copies."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from lorakiln.base.errors import UserError
from lorakiln.base.settings import Recipe
from lorakiln.curate import duplicates, measure
from lorakiln.curate.index import Index
from lorakiln.data import split
from lorakiln.data.dataset import Dataset, DatasetSpec, Example, scan
from lorakiln.tag import captions


def read_pictures(recipe: Recipe, specs: Sequence[DatasetSpec]) -> tuple[Dataset, tuple[Example, ...]]:
    """(what is trained on, what is held out) of a recipe's tables, given as `specs`. Raises UserError as `scan` does.

    Held out are the same pictures whenever seed and contents are the same.
    """
    tables = [scan([spec], captions.parse_folder) for spec in specs]
    examples = [example for table in tables for example in table.examples]
    ignored = tuple(path for table in tables for path in table.ignored)
    if not any(table.heldout for table in recipe.dataset):
        return Dataset(tuple(examples), ignored), ()
    groups = same_pictures(examples)
    held: set[int] = set()
    start = 0
    for settings, table in zip(recipe.dataset, tables, strict=True):
        end = start + len(table.examples)
        count = split.wanted(settings.heldout, end - start, settings.folder)
        own = [group for group in groups if all(start <= index < end for index in group)]
        chosen = split.choose(examples, own, count, recipe.seed)
        if count and not chosen:
            raise UserError(
                f"dataset.heldout = {settings.heldout:g}: every picture of {settings.folder} has more copies than that"
            )
        held |= chosen
        start = end
    trained = tuple(example for index, example in enumerate(examples) if index not in held)
    return Dataset(trained, ignored), tuple(examples[index] for index in sorted(held))


def same_pictures(examples: Sequence[Example]) -> list[list[int]]:
    """The indices of `examples` in sets of copies, as `kiln curate` finds them; a picture without copies is alone."""
    with tempfile.TemporaryDirectory(prefix="kiln-copies-") as place:
        index = Index(Path(place))  # nothing is written beside the user's pictures
        found = [measure.read(example.path, f"{number:08d}") for number, example in enumerate(examples)]
        index.store((picture, thumbnail, 0) for picture, thumbnail in found)
        groups = duplicates.find([picture for picture, _ in found], index).groups
        index.close()
    joined = [(int(group.names[0]), int(name)) for group in groups for name in group.names[1:]]
    return duplicates.join(len(examples), joined)
