"""What goes into the header of a trained LoRA: a function of recipe, data and weights, without any path or hour."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from lorakiln.adapters.files.metadata import Header, metadata
from lorakiln.adapters.spec import AdapterSpec
from lorakiln.base.recipe import portable
from lorakiln.base.settings import Recipe
from lorakiln.data.dataset import Dataset, Example
from lorakiln.families.family import Family
from lorakiln.tag.captions import parse
from lorakiln.train.plan import Moment, Plan


def lora_metadata(
    recipe: Recipe, name: str, spec: AdapterSpec, family: Family, dataset: Dataset, plan: Plan, moment: Moment
) -> dict[str, str]:
    """kohya's and modelspec keys, and Kiln's own, for the LoRA as it is at `moment`."""
    optim = recipe.optim
    side = recipe.dataset[0].resolution or family.resolution
    header = Header(
        recipe=json.dumps(portable(recipe.model_dump()), sort_keys=True),
        adapter=spec,
        title=name,
        dataset_hash=dataset.digest,
        base_name=Path(recipe.base).name,
        base_hash=family.digest(),
        steps=moment.step,
        epoch=moment.epoch,
        max_steps=plan.steps,
        num_epochs=plan.epochs,
        seed=recipe.seed,
        learning_rates={"unet": optim.lr, "te1": optim.text_lr, "te2": optim.second_text_lr},
        optimizer=optim.name,
        scheduler=optim.schedule,
        prediction=family.schedule.prediction,
        resolution=(side, side),
        num_images=dataset.visits,
        tag_frequency=tag_frequency(dataset),
        trigger_phrase=trigger(dataset),
        settings=_training_settings(recipe, family, dataset, plan),
    )
    return metadata(header)


def tag_frequency(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Folder name -> tag -> pictures that carry it, as A1111 and other tools show it."""
    folders: dict[str, Counter[str]] = {}
    for example in dataset.examples:
        folders.setdefault(Path(example.spec.folder).name, Counter()).update(set(parse(example.caption)))
    return {folder: dict(counts) for folder, counts in folders.items()}


def trigger(dataset: Dataset) -> str:
    """The first tag, if it is the same in every caption; else empty."""
    firsts = {_first_tag(example) for example in dataset.examples}
    return firsts.pop() if len(firsts) == 1 else ""


def _first_tag(example: Example) -> str:
    return next(iter(parse(example.spec.draw(example.caption, 0)) or parse(example.caption)), "")


def _training_settings(recipe: Recipe, family: Family, dataset: Dataset, plan: Plan) -> dict[str, Any]:
    """What sd-scripts writes under the same names; None where it has no effect."""
    train, loss = recipe.train, recipe.loss
    counts = Counter(example.crop.target for example in dataset.examples for _ in range(example.spec.repeats))
    buckets = {
        str(n): {"resolution": [*size], "count": count} for n, (size, count) in enumerate(sorted(counts.items()))
    }
    return {
        "num_batches_per_epoch": plan.loader.steps_per_epoch * train.accumulate,
        "batch_size_per_device": train.batch,
        "gradient_accumulation_steps": train.accumulate,
        "gradient_checkpointing": train.checkpointing,
        "mixed_precision": {"fp32": "no"}.get(train.precision, train.precision),
        "max_grad_norm": recipe.optim.clip,
        "min_snr_gamma": loss.min_snr_gamma or None,
        "noise_offset": loss.noise_offset or None,
        "zero_terminal_snr": family.schedule.ztsnr,
        "bucket_info": json.dumps({"buckets": buckets}, sort_keys=True),
        "dataset_dirs": json.dumps(
            {Path(table.folder).name: {"n_repeats": table.repeats} for table in recipe.dataset}, sort_keys=True
        ),
    }
