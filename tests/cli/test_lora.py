"""What one does with LoRA files, on a LoRA that was really trained: describe, merge, resize, extract, convert."""

import json

import pytest
import torch

from lorakiln import families
from lorakiln.adapters.files.read import read
from lorakiln.base.errors import UserError
from lorakiln.cli import app
from lorakiln.cli.lora import _step
from lorakiln.runs import lora_files
from lorakiln.runs.drawing import load_lora
from lorakiln.sample.generate import Request, draw_latents
from tests.runs.conftest import base, make, pictures, run  # noqa: F401  fixtures

REQUEST = Request("trigger, red", "blue", 64, 64, steps=3, cfg=3.0, seed=3)


@pytest.fixture
def lora(run):  # noqa: F811
    result = run(optim={"lr": 2e-2, "text_lr": 1e-2}, save={"dtype": "fp32"}, train={"epochs": 4})
    return result.folder.lora


def drawn(base, *loras):  # noqa: F811
    """The latent that a base draws with LoRAs on it."""
    family = families.load(base, prediction="epsilon")
    networks = [load_lora(family, path, strength) for path, strength in loras]
    latent = draw_latents(family, [REQUEST])
    for network in reversed(networks):
        network.remove()
    return latent


def same(one, other):
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def kiln(*words):
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, [*map(str, words), "--json"], catch_exceptions=False)
    return json.loads(result.output)


def test_inspect_says_what_was_trained(lora, base):  # noqa: F811
    facts = kiln("inspect", lora, "--base", base)
    assert facts["kinds"] == {"lora": sum(facts["parts"].values())}
    assert set(facts["parts"]) == {"unet", "te1", "te2"}
    assert facts["ranks"] == {"4": sum(facts["parts"].values())}
    assert facts["trigger_phrase"] == "trigger" and facts["hash_matches"] is True
    assert facts["tags"][0][1] == 1.0 and json.loads(facts["recipe"])["adapter"]["rank"] == 4
    # not every text layer moves: SDXL reads the encoders' last layer but one
    assert all(norm > 0 for block, norm in facts["norms"].items() if "te" not in block.split("_")[0])


def test_a_base_with_a_lora_merged_in_draws_what_both_draw(lora, base, tmp_path):  # noqa: F811
    out = tmp_path / "merged.safetensors"
    assert kiln("merge", f"{lora}:0.7", "--base", base, "--out", out)["changed"] > 100
    # the tiny base is fp16 on disk, so its merged weights are rounded
    torch.testing.assert_close(drawn(out), drawn(base, (lora, 0.7)), rtol=0.02, atol=0.02)


def test_two_loras_become_one(lora, base, tmp_path):  # noqa: F811
    out = tmp_path / "sum.safetensors"
    kiln("merge", f"{lora}:0.5", f"{lora}:0.25", "--out", out, "--dtype", "fp32")
    same(drawn(base, (out, 1.0)), drawn(base, (lora, 0.75)))
    found = read(out).metadata
    (step,) = json.loads(found["lorakiln.history"])
    assert [one["strength"] for one in step["of"]] == [0.5, 0.25] and found["ss_network_dim"] == "8"
    assert "lorakiln.recipe" not in found, "it is of no training"


def test_resizing_keeps_what_it_says(lora, base, tmp_path):  # noqa: F811
    whole, small = tmp_path / "whole.safetensors", tmp_path / "small.safetensors"
    assert kiln("resize", lora, "--out", whole, "--rank", 4, "--dtype", "fp32")["least_energy_kept"] > 0.999
    same(drawn(base, (whole, 1.0)), drawn(base, (lora, 1.0)))
    facts = kiln("resize", lora, "--out", small, "--rank", 1)
    assert facts["highest_rank"] == 1 and 0 < facts["least_energy_kept"] < 1
    said = kiln("inspect", small)
    assert said["hash_matches"] is True and said["training"]["network_dim"] == "1" and said["recipe"]
    assert said["history"] == [{"verb": "resize", "rank": 1, "of": read(lora).metadata["sshs_model_hash"]}]


def test_what_was_merged_can_be_extracted_again(lora, base, tmp_path):  # noqa: F811
    merged, out = tmp_path / "merged.safetensors", tmp_path / "again.safetensors"
    kiln("merge", lora, "--base", base, "--out", merged)
    kiln("extract", base, merged, "--out", out, "--rank", 8, "--dtype", "fp32")
    torch.testing.assert_close(drawn(base, (out, 1.0)), drawn(merged), rtol=0.05, atol=0.05)


def test_diffusers_names_and_back(lora, base, tmp_path):  # noqa: F811
    theirs, ours = tmp_path / "diffusers.safetensors", tmp_path / "kohya.safetensors"
    kiln("convert", lora, "--to", "diffusers", "--base", base, "--out", theirs, "--dtype", "fp32")
    same(drawn(base, (theirs, 1.0)), drawn(base, (lora, 1.0)))
    kiln("convert", theirs, "--to", "kohya", "--base", base, "--out", ours, "--dtype", "fp32")
    same(drawn(base, (ours, 1.0)), drawn(base, (lora, 1.0)))
    first, second, third = (read(path).metadata for path in (lora, theirs, ours))
    kept = {key for key in first if not key.startswith(("sshs_", "ss_network"))}
    assert all(second[key] == third[key] == first[key] for key in kept)
    assert {key for key in second.keys() - kept if "sshs" not in key} == {"format", "lora_adapter_metadata"}
    assert third.keys() == first.keys() and third["ss_network_dim"] == "4"


def test_a_step_of_a_files_history_is_one_line():
    sources = [{"title": "emoji", "hash": "9a", "strength": 0.5}, {"title": "", "hash": "1f", "strength": 1.0}]
    assert _step({"verb": "merge", "of": sources, "rank": 8}) == "merge of emoji at 0.5, 1f at 1.0; rank 8"
    assert _step({"verb": "resize", "of": "9a", "energy": 0.9}) == "resize; energy 0.9"


def test_no_file_is_overwritten_unasked(lora, tmp_path):
    (tmp_path / "out.safetensors").write_bytes(b"precious")
    with pytest.raises(UserError, match=r"out\.safetensors: exists"):
        lora_files.resize_file(lora, tmp_path / "out.safetensors", rank=2)
    assert (tmp_path / "out.safetensors").read_bytes() == b"precious"
