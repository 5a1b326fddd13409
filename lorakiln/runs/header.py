"""What goes into the header of a trained LoRA: a function of recipe, data and weights, without any path or hour."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from lorakiln.adapters.files.metadata import Header, metadata
from lorakiln.base.recipe import portable
from lorakiln.base.settings import Recipe
from lorakiln.data.dataset import Dataset, Example
from lorakiln.families.family import Family
from lorakiln.runs.parts import Parts
from lorakiln.tag.captions import parse
from lorakiln.train.plan import Moment, Plan


def lora_metadata(recipe: Recipe, name: str, parts: Parts, moment: Moment) -> dict[str, str]:
    """kohya's and modelspec keys, and Kiln's own, for the LoRA as it is at `moment`."""
    optim, family, dataset, plan, spec = recipe.optim, parts.family, parts.dataset, parts.plan, parts.network.spec
    assert spec is not None, "a trained network knows its spec"
    side = recipe.dataset[0].resolution or family.resolution
    header = Header(
        recipe=json.dumps(portable(recipe.model_dump()), sort_keys=True),
        adapter=spec,
        title=name,
        dataset_hash=dataset.digest,
        base_name=Path(recipe.base).name,
        base_hash=parts.base_hash,
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
    names = dataset.folders
    for example in dataset.examples:
        # the lines of a caption are alternatives
        tags = {tag for line in example.caption.splitlines() for tag in parse(line)}
        folders.setdefault(names[example.spec.folder], Counter()).update(tags)
    return {folder: dict(counts) for folder, counts in folders.items()}


def dataset_dirs(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Folder name -> how often each of its pictures is seen an epoch, and how many there are, as sd-scripts has it."""
    counts, names = Counter(example.spec for example in dataset.examples), dataset.folders
    return {names[spec.folder]: {"n_repeats": spec.repeats, "img_count": count} for spec, count in counts.items()}


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
        "dataset_dirs": json.dumps(dataset_dirs(dataset), sort_keys=True, ensure_ascii=False),
    }
