"""A recipe's folders for sd-scripts: one train_data_dir where that says it all, else a dataset_config."""

import re
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import tomlkit

from lorakiln.base.settings import Dataset, Recipe
from lorakiln.exchange.dataset_config import KOHYA_FOLDER
from lorakiln.exchange.pictures import CAPTIONS

if TYPE_CHECKING:
    from lorakiln.exchange.export import Exported

DATASET_LEVEL = {"resolution", "batch_size", "enable_bucket", "bucket_reso_steps", "min_bucket_reso", "max_bucket_reso",
                 "bucket_no_upscale", "validation_split"}  # fmt: skip


def pictures(recipe: Recipe, out: "Exported") -> None:
    """train_data_dir, with reg_data_dir for prior pictures, where their folders are kohya's; else dataset tables."""
    first, *others = recipe.dataset
    alike = [_alike(first, other) for other in others]
    plain = first.weight == 1 and (not others or (alike == [True] and not others[0].heldout))
    if plain and all(_read_by_name(dataset) for dataset in recipe.dataset):
        out.arguments |= {"train_data_dir": first.folder, **_table(first, out), **_heldout(first, out)}
        if others:
            out.arguments |= {"reg_data_dir": others[0].folder, "prior_loss_weight": others[0].weight}
        return
    for dataset in recipe.dataset:
        own = {**_table(dataset, out), **_heldout(dataset, out), "batch_size": recipe.train.batch}
        own["resolution"] = int(str(own["resolution"]).partition(",")[0])
        if own.pop("masked_loss", None):
            out.arguments["masked_loss"] = True
        if dataset.weight != 1:
            own["is_reg"] = True
            out.arguments["prior_loss_weight"] = dataset.weight
        out.datasets += [own | named for named in _folders(dataset)]


def _alike(one: Dataset, other: Dataset) -> bool:
    apart = {"folder": "", "weight": 1.0, "heldout": 0.0}
    return {**one.model_dump(), **apart} == {**other.model_dump(), **apart}


def _read_by_name(dataset: Dataset) -> bool:
    """Whether sd-scripts reads the folder as Kiln does when it is the train_data_dir: it enters `10_name` folders only.

    A folder that is not here is taken to hold such.
    """
    folder = Path(dataset.folder)
    named = KOHYA_FOLDER.fullmatch(_name(dataset.folder))
    flat = folder.is_dir() and not _kohya_folders(folder)
    return dataset.folder_names and dataset.repeats == 1 and not named and not flat


def _folders(dataset: Dataset) -> list[dict[str, Any]]:
    """image_dir and num_repeats (and the caption of bare pictures) of each folder that is trained on.

    A dataset_config does not read the number in `10_name`, so it is multiplied in here.
    """
    if not dataset.folder_names:
        return [{"image_dir": dataset.folder, "num_repeats": dataset.repeats}]
    inside = _kohya_folders(Path(dataset.folder))
    if not inside or KOHYA_FOLDER.fullmatch(_name(dataset.folder)):
        inside = [dataset.folder]
    found = []
    for folder in inside:
        number, _, words = _name(folder).partition("_") if KOHYA_FOLDER.fullmatch(_name(folder)) else ("1", "", "")
        one: dict[str, Any] = {"image_dir": folder, "num_repeats": dataset.repeats * int(number)}
        found.append(one | {"class_tokens": words.strip()} if words.strip() else one)
    return found


def _kohya_folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(str(child) for child in folder.iterdir() if child.is_dir() and KOHYA_FOLDER.fullmatch(child.name))


def _name(folder: str) -> str:
    return PurePath(re.split(r"[/\\]", folder.rstrip("/\\"))[-1]).name


def _heldout(dataset: Dataset, out: "Exported") -> dict[str, Any]:
    """The share that is held out; sd-scripts draws other pictures."""
    if not dataset.heldout:
        return {}
    if dataset.heldout >= 1:
        out.lost("dataset.heldout", f"{dataset.heldout:g}", "sd-scripts holds out a share of the pictures, no number")
        return {}
    return {"validation_split": dataset.heldout}


def _table(dataset: Dataset, out: "Exported") -> dict[str, Any]:
    side = dataset.resolution or 1024
    table: dict[str, Any] = {"resolution": f"{side},{side}", "caption_extension": dataset.extensions[0]}
    for argument, name in CAPTIONS.items():
        if getattr(dataset, name):
            table[argument] = getattr(dataset, name)
    if dataset.bucket:
        table |= {"enable_bucket": True, "bucket_reso_steps": dataset.bucket_step}
        if dataset.no_upscale:
            table["bucket_no_upscale"] = True
        else:
            low, high = dataset.bucket_min or side // 2, dataset.bucket_max or 2 * side
            table |= {"min_bucket_reso": low, "max_bucket_reso": high}
        if dataset.bucket_step % 32:
            out.lost("dataset.bucket_step", dataset.bucket_step, "sd-scripts wants a multiple of 32 for SDXL")
    if dataset.random_crop:
        table["random_crop"] = True
    if dataset.masks == "alpha":
        table |= {"alpha_mask": True, "masked_loss": True}
    elif dataset.masks:
        table |= {"conditioning_data_dir": dataset.masks, "masked_loss": True}
    if dataset.background != "#ffffff":
        out.lost("dataset.background", dataset.background, "sd-scripts drops the transparency, whatever lies under it")
    if len(dataset.extensions) > 1:
        out.lost("dataset.extensions", dataset.extensions, "sd-scripts reads one kind of caption file, the first")
    return table


def dataset_file(out: "Exported") -> str:
    """The dataset_config, where one is needed."""
    document = tomlkit.document()
    tables = tomlkit.aot()
    for table in out.datasets:
        dataset, subset = tomlkit.table(), tomlkit.table()
        dataset.update({key: value for key, value in table.items() if key in DATASET_LEVEL})
        subset.update({key: value for key, value in table.items() if key not in DATASET_LEVEL})
        subsets = tomlkit.aot()
        subsets.append(subset)
        dataset.add("subsets", subsets)
        tables.append(dataset)
    document.add("datasets", tables)
    return tomlkit.dumps(document)
