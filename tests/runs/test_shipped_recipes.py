"""Every recipe that ships, trained for real on the starter for three steps: what comes out is what the recipe says."""

import math
import shutil
from pathlib import Path

import pytest
import torch

from lorakiln.adapters.files.read import read as read_file
from lorakiln.advise.check import check, gather, stops
from lorakiln.base import recipe as recipes
from lorakiln.base.settings import Recipe
from lorakiln.runs.run import Result, train
from tests.runs.conftest import losses
from tools.recipes import FILES

ROOT = Path(__file__).parent.parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
STEPS = 3
STATE = {  # optimizer -> the names that its state's tensors end with
    "adamw": {"exp_avg", "exp_avg_sq", "step"},
    "adamw8bit": {"state1", "state2", "qmap1", "qmap2", "absmax1", "absmax2"},
    "prodigy": {"anchor", "d", "d_max", "k", "mean", "numerator", "s", "square"},
    "came": {"mean", "square_row", "square_col", "residual_row", "residual_col"},
    "adafactor": {"square_row", "square_col"},
}
# SDXL reads the first text encoder's last layer but one, so nothing ever reaches its last
UNREACHED = "lora_te1_text_model_encoder_layers_2_"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Four pictures of each of the folders that recipes name, and one cache of latents for all runs."""
    place = tmp_path_factory.mktemp("shipped")
    for folder in ("examples/twemoji", "examples/mascot"):
        (place / folder).mkdir(parents=True)
        for picture in sorted((ROOT / folder).glob("*.png"))[:4]:
            shutil.copy(picture, place / folder)
            shutil.copy(picture.with_suffix(".txt"), place / folder)
    return place


def trained(path: Path, place: Path) -> tuple[Recipe, Result]:
    """A short run of the file: fewer pictures and steps and no samples; all else is the file's own."""
    folder = recipes.read(path).dataset[0].folder
    changes = {
        "runs": place / "runs", "cache.folder": place / "cache", "dataset.0.folder": place / folder,
        "train.steps": STEPS, "train.epochs": STEPS, "save.steps": STEPS, "save.epochs": 0, "save.dtype": "fp32",
        "sample.steps": 0, "sample.epochs": 0, "sample.prompts": [],
    }  # fmt: skip
    recipe = recipes.read(path, [f"{name}={value}" for name, value in changes.items()])
    return recipe, train(recipe, path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_trains_the_starter_and_writes_what_it_promises(path, place):
    recipe, result = trained(path, place)
    assert len(losses(result)) == STEPS and all(math.isfinite(loss) for loss in losses(result))
    tensors = read_file(result.folder.lora).tensors
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    ups = {name: tensor for name, tensor in tensors.items() if name.endswith("lora_up.weight")}
    assert all(tensor.any() for name, tensor in ups.items() if not name.startswith(UNREACHED)), "not trained"
    has_the_layers_that_it_promises(recipe, tensors, {name.partition(".")[0]: tensor for name, tensor in ups.items()})
    (state,) = result.folder.state.iterdir()
    whole = read_file(state).tensors
    assert {tensor.dtype for name, tensor in whole.items() if name.startswith("adapter:")} == {torch.float32}
    held = {name: tensor for name, tensor in whole.items() if name.startswith("optimizer:")}
    assert {name.rpartition(":")[2].rpartition(".")[2] for name in held} == STATE[recipe.optim.name]
    moments = {tensor.dtype for name, tensor in held.items() if name.endswith(("state1", "state2"))}
    assert moments == ({torch.uint8} if recipe.optim.name == "adamw8bit" else set())


def has_the_layers_that_it_promises(recipe, tensors, ups):
    """Ranks, convolutions, magnitudes and text encoders as the recipe has them; `ups` by module."""
    adapter = recipe.adapter
    assert {tensor.shape[1] for tensor in ups.values()} <= {adapter.rank, adapter.conv_rank}
    spatial = [name for name, tensor in tensors.items() if "lora_down" in name and tensor.shape[2:].numel() > 1]
    assert bool(spatial) == bool(adapter.conv_rank)
    normed = {name.partition(".")[0] for name in tensors if name.endswith("dora_scale")}
    assert normed == (set(ups) if adapter.dora else set())
    parts = {name.split("_")[1] for name in ups}
    assert parts == ({"unet", "te1", "te2"} if recipe.optim.text_lr else {"unet"})


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_recipe_passes_its_own_preflight(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    path = Path("recipes", file.name)
    assert not stops(check(gather(recipes.read(path), path)))
