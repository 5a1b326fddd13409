"""Every setting has the effect that it declares: one row a setting, which changes it alone and shows what happens.

A setting that cannot show its effect may not exist, and a new setting without a row fails.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from lorakiln.adapters.files.read import read
from lorakiln.base import recipe as recipes
from lorakiln.base.settings import Section, sections
from lorakiln.runs.run import train
from tests.runs.effects import ONE, Outcome, make_place, outcome, parsed


@dataclass
class Row:
    """`name` = `value` must show its effect, with `given` (other settings, dotted) set in both runs."""

    name: str
    value: Any
    given: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


LOKR = {"adapter.kind": "lokr", "adapter.factor": 4}
CONV = {"adapter.conv_rank": 2}
HUBER = {"loss.kind": "huber", "loss.huber_c": 0.3}
DRAWN = {"sample.prompts": ["red"], "sample.count": 2}
HELD = {ONE + "heldout": 1.0}
RANKS = {"adapter.ranks": [{"pattern": "*attn2*", "rank": 2}]}
RATES = {"optim.rates": [{"pattern": "*attn2*", "factor": 0.1}]}

SHAPING = [
    Row("base", "other.safetensors"),
    Row("vae", "other.safetensors"),
    Row("prediction", "v"),
    Row("ztsnr", "on", {"prediction": "v", "ztsnr": "off"}),
    Row("init", "init.safetensors"),
    Row("seed", 7),
    Row("adapter.kind", "loha"),
    Row("adapter.rank", 2),
    Row("adapter.alpha", 1.0),
    Row("adapter.conv_rank", 2),
    Row("adapter.conv_alpha", 4.0, CONV),
    Row("adapter.tucker", True, CONV),
    Row("adapter.dora", True),
    Row("adapter.dora_axis", "output", {"adapter.dora": True}),
    Row("adapter.rank_stabilised", True),
    Row("adapter.rank_dropout", 0.5),
    Row("adapter.module_dropout", 0.5),
    Row("adapter.factor", 8, LOKR),
    Row("adapter.full_matrix", True, LOKR),
    Row("adapter.decompose_both", True, {"adapter.kind": "lokr", "adapter.factor": 16, "adapter.rank": 2}),
    Row("adapter.targets", ["*attn1*"]),
    Row("adapter.exclude", ["*attn1*"]),
    Row("adapter.ranks", RANKS["adapter.ranks"]),
    Row("adapter.ranks.0.pattern", "*attn1*", RANKS),
    Row("adapter.ranks.0.rank", 3, RANKS),
    Row("adapter.ranks.0.alpha", 1.0, RANKS),
    Row("optim.name", "lion"),
    Row("optim.lr", 2e-3),
    Row("optim.text_lr", 1e-3),
    Row("optim.text2_lr", 0.0, {"optim.text_lr": 1e-3}),
    Row("optim.rates", RATES["optim.rates"]),
    Row("optim.rates.0.pattern", "*attn1*", RATES),
    Row("optim.rates.0.factor", 0.5, RATES),
    Row("optim.loraplus", 16.0),
    Row("optim.options", {"weight_decay": 0.9}),
    Row("optim.schedule", "constant"),
    Row("optim.schedule_options", {"min_ratio": 0.5}),
    Row("optim.warmup", 3.0),
    Row("optim.clip", 1e-3, {"optim.name": "torch.optim.SGD", "optim.lr": 1.0}),
    Row("loss.kind", "l1"),
    Row("loss.huber_schedule", "constant", HUBER),
    Row("loss.huber_c", 0.9, HUBER | {"loss.huber_schedule": "constant"}),
    Row("loss.min_snr_gamma", 0.1),
    Row("loss.debiased", True),
    Row("loss.noise_offset", 0.1),
    Row("loss.multires_levels", 3),
    Row("loss.multires_discount", 0.9, {"loss.multires_levels": 3}),
    Row("loss.input_perturbation", 0.2),
    Row("loss.min_timestep", 500),
    Row("loss.max_timestep", 300),
    Row("loss.timesteps", "low_discrepancy"),
    Row("train.epochs", 5),
    Row("train.steps", 2),
    Row("train.batch", 1),
    Row("train.accumulate", 2),
    Row("train.precision", "bf16"),
    Row("train.adapter_precision", "bf16"),
    Row(ONE + "folder", "others"),
    Row(ONE + "repeats", 2),
    Row(ONE + "resolution", 48),
    Row(ONE + "extensions", [".caption"]),
    Row(ONE + "prefix", "zzz"),
    Row(ONE + "suffix", "zzz"),
    Row(ONE + "shuffle", True),
    Row(ONE + "keep_tokens", 3, {ONE + "shuffle": True}),
    Row(ONE + "keep_separator", "red", {ONE + "shuffle": True}),
    Row(ONE + "tag_dropout", 0.5),
    Row(ONE + "caption_dropout", 0.5),
    Row(ONE + "wildcards", True),
    Row(ONE + "flip", True),
    Row(ONE + "random_crop", True, {"cache.latents": "off"}),
    Row(ONE + "bucket", False),
    Row(ONE + "bucket_step", 8),
    Row(ONE + "bucket_min", 48),
    Row(ONE + "bucket_max", 64),
    Row(ONE + "no_upscale", True, {ONE + "resolution": 128}),
    Row(ONE + "background", "#000000"),
    Row(ONE + "masks", "alpha"),
    Row(ONE + "weight", 0.5),
    Row(ONE + "heldout", 1.0),
]
SHOWN = [
    Row("name", "other"),
    Row("runs", "elsewhere"),
    Row("save.epochs", 1),
    Row("save.steps", 2),
    Row("save.keep", 1, {"save.steps": 1}),
    Row("save.dtype", "fp32"),
    Row("save.state_minutes", 0.0),
    Row("judge.epochs", 1, HELD),
    Row("judge.steps", 2, HELD),
    Row("sample.prompts", ["blue"], DRAWN),
    Row("sample.file", "prompts.txt"),
    Row("sample.epochs", 1, DRAWN | {"train.epochs": 2}),
    Row("sample.steps", 1, DRAWN),
    Row("sample.sampler", "euler_a", DRAWN),
    Row("sample.count", 3, DRAWN),
    Row("sample.cfg", 2.0, DRAWN),
    Row("sample.rescale", 0.7, DRAWN),
    Row("sample.width", 48, DRAWN),
    Row("sample.height", 48, DRAWN),
    Row("sample.negative", "blue", DRAWN),
    Row("sample.seed", 9, DRAWN),
]
# settings with a test of their own, in test_effects_apart if nothing else is said
# (purpose and ignore are read by `kiln check` alone: tests/advise)
APART = ["purpose", "ignore", "device", "train.checkpointing", "train.deterministic", ONE + "missing"]
APART += ["judge.stop"]  # tests/runs/test_judging.py
APART += [ONE + "folder_names"]  # tests/data/test_dataset.py
APART += ["cache.latents", "cache.text", "cache.text_megabytes", "cache.folder"]


def every_setting() -> dict[str, str]:
    """The dotted name of every setting, those of a list's tables under its first one -> its effect."""
    found: dict[str, str] = {}

    def add(prefix: str, model: type[Section]) -> None:
        for key, one in model.model_fields.items():
            if isinstance(one.json_schema_extra, dict):
                found[f"{prefix}{key}"] = str(one.json_schema_extra["effect"])
            for inner in get_args(one.annotation):
                if key != "dataset" and isinstance(inner, type) and issubclass(inner, Section):
                    add(f"{prefix}{key}.0.", inner)

    for section, model in sections():
        add({"": "", "dataset": ONE}.get(section, f"{section}."), model)
    return found


def test_every_setting_has_a_row():
    assert every_setting().keys() - {"dataset"} == {row.name for row in SHAPING + SHOWN} | set(APART)
    assert {"adapter.ranks.0.alpha", "optim.rates.0.factor"} <= every_setting().keys()


def same_weights(one: Outcome, other: Outcome) -> bool:
    names = one.weights.keys() == other.weights.keys()
    return names and all(torch.equal(tensor, other.weights[name]) for name, tensor in one.weights.items())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("effects"))


@pytest.fixture(scope="module")
def outcomes(place, tmp_path_factory):
    """Runs of the same settings are done once."""
    known: dict[str, Outcome] = {}

    def get(changes: dict[str, Any], still: bool = False) -> Outcome:
        key = json.dumps([changes, still], sort_keys=True)
        if key not in known:
            known[key] = outcome(parsed(place, changes), tmp_path_factory.mktemp("run"), still)
        return known[key]

    return get


@pytest.mark.filterwarnings("ignore:.*dora_axis.*")
@pytest.mark.parametrize("row", SHAPING, ids=str)
def test_a_setting_that_shapes_the_weights_shows_its_effect(row, outcomes):
    """What changes the loss itself changes it with the weights held still, where a tensors' setting has no say."""
    effect = every_setting()[row.name]
    before, after = (outcomes(given, effect == "loss") for given in (row.given, row.given | {row.name: row.value}))
    if effect == "order":
        assert before.seen != after.seen
    elif effect == "loss":
        assert before.losses != after.losses
    else:
        assert effect == "tensors"
        assert not same_weights(before, after)


def test_an_adapter_in_bf16_is_saved_as_it_was_trained(outcomes):
    for precision, exact in (("bf16", True), ("fp32", False)):
        weights = outcomes({"train.adapter_precision": precision} if exact else {}).weights.values()
        assert all(torch.equal(tensor.bfloat16().float(), tensor) for tensor in weights) == exact


def test_nothing_changed_changes_nothing(place, outcomes, tmp_path):
    """The comparison itself: two runs of the same settings agree in all that the rows look at."""
    before, after = outcomes({}), outcome(parsed(place, {}), tmp_path)
    assert (before.losses, before.seen) == (after.losses, after.seen) and same_weights(before, after)


def everything(recipe: recipes.Recipe) -> tuple[dict[str, Any], bytes]:
    """(the files of a run that neither tell the time nor hold the recipe, its trained weights).

    A LoRA carries its recipe in its header, where it would be another file whatever the setting did: it is taken out.
    """
    result = train(recipe, Path("effects.toml"), overwrite=True)
    folder = Path(recipe.runs)
    files = {str(path.relative_to(folder.parent)): contents(path) for path in folder.rglob("*") if path.is_file()}
    clocks = ("run.json", "tensorboard", "loss.png", "recipe.toml")
    state = max(result.folder.state.iterdir()).read_bytes()
    return {name: data for name, data in files.items() if not any(clock in name for clock in clocks)}, state


def contents(path: Path) -> Any:
    if path.suffix != ".safetensors" or path.parent.name == "state":
        return path.read_bytes()
    file = read(path)
    recipe = json.loads(file.metadata["lorakiln.recipe"])
    assert recipe["adapter"]["rank"] == 4
    metadata = {key: value for key, value in file.metadata.items() if key != "lorakiln.recipe"}
    return metadata, {name: (str(tensor.dtype), tensor.tolist()) for name, tensor in file.tensors.items()}


@pytest.mark.parametrize("row", SHOWN, ids=str)
def test_a_setting_of_files_and_samples_changes_them_and_not_the_weights(row, place):
    name = row.name.replace(".", "-")
    short = {"train.epochs": 1, "runs": f"runs-{name}"} | row.given
    before, weights = everything(parsed(place, short))
    after, weights_after = everything(parsed(place, short | {row.name: row.value}))
    assert before != after
    assert weights == weights_after
    assert every_setting()[row.name] in ("files", "log")
