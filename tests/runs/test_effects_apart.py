"""Settings whose effect is not in losses, weights or files: memory, calls, errors. Their rows are in test_effects."""

import json

import pytest
import torch

from lorakiln.base.errors import UserError
from tests.runs.conftest import draw_picture
from tests.runs.effects import ONE, make_place, outcome, parsed
from tests.tiny import TINY, tiny_metadata


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("effects"))


def test_a_missing_caption_is_an_error_or_empty(place, tmp_path):
    (tmp_path / "bare").mkdir()
    draw_picture(tmp_path / "bare" / "a.png", (64, 64), 1)
    bare = {ONE + "folder": str(tmp_path / "bare")}
    with pytest.raises(UserError, match=r"a\.png: has no caption file"):
        outcome(parsed(place, bare), tmp_path)
    assert outcome(parsed(place, bare | {ONE + "missing": "empty"}), tmp_path).losses


def test_checkpointing_keeps_fewer_activations_for_the_same_losses(place, tmp_path):
    saved: list[int] = []

    def count(tensor):
        saved[-1] += tensor.numel()
        return tensor

    losses = []
    for checkpointing in (False, True):
        saved.append(0)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            losses.append(outcome(parsed(place, {"train.checkpointing": checkpointing}), tmp_path).losses)
    assert saved[1] < 0.6 * saved[0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_deterministic_asks_torch_for_reproducible_kernels(place, tmp_path):
    outcome(parsed(place, {"train.deterministic": True}), tmp_path)
    assert torch.are_deterministic_algorithms_enabled()
    outcome(parsed(place, {}), tmp_path)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU that is not there")
def test_the_device_is_the_one_asked_for(place, tmp_path):
    assert outcome(parsed(place, {"device": "cpu"}), tmp_path).losses
    with pytest.raises(UserError, match=r"device = 'cuda': this machine has 0 usable GPUs"):
        outcome(parsed(place, {"device": "cuda"}), tmp_path)


def encodings(monkeypatch, method: str) -> list[int]:
    """How many rows each call of a family's method was given, from now on."""
    from lorakiln.families.sdxl.model import SDXL

    real, calls = getattr(SDXL, method), []

    def counted(self, rows, *rest):
        calls.append(len(rows))
        return real(self, rows, *rest)

    monkeypatch.setattr(SDXL, method, counted)
    return calls


@pytest.mark.parametrize(("where", "times"), [("memory", 4), ("off", 16)])
def test_cached_latents_are_encoded_once(place, tmp_path, monkeypatch, where, times):
    calls = encodings(monkeypatch, "encode_pixels")
    outcome(parsed(place, {"cache.latents": where, "train.epochs": 4}), tmp_path)
    assert sum(calls) == times


def test_latents_on_disk_are_found_again_in_their_folder(place, tmp_path, monkeypatch):
    calls = encodings(monkeypatch, "encode_pixels")
    on_disk = {"cache.latents": "disk", "cache.folder": str(tmp_path / "cache")}
    first = outcome(parsed(place, on_disk), tmp_path)
    assert sum(calls) == 4 and any((tmp_path / "cache").rglob("*.safetensors"))
    assert outcome(parsed(place, on_disk), tmp_path).losses == first.losses
    assert sum(calls) == 4


def test_cached_captions_are_encoded_once_as_far_as_the_cap_allows(place, tmp_path, monkeypatch):
    calls = encodings(monkeypatch, "encode_text")
    totals = {}
    for where in ("memory", "off"):
        before = len(calls)
        outcome(parsed(place, {"cache.text": where, "train.epochs": 4}), tmp_path)
        totals[where] = len(calls) - before
    assert totals["memory"] < totals["off"]


def test_the_cap_on_captions_holds():
    from lorakiln.runs.text import FrozenText
    from tests.tiny import tiny_family

    roomy, tight = (FrozenText(tiny_family(), cached=True, megabytes=size) for size in (64, 1))
    captions = [f"caption {number}" for number in range(80)]
    for text in (roomy, tight):
        text.fill(captions)
    assert roomy.cache.store.used > tight.cache.store.used and tight.cache.store.used <= 2**20
    assert torch.equal(roomy(captions[:3]).context_BTC, tight(captions[:3]).context_BTC)


def test_the_tiny_model_says_nothing_of_its_prediction():
    """So that the rows on prediction and ztsnr change what is trained, not what is checked."""
    assert "scheduler" not in json.loads(tiny_metadata()["lorakiln.model_config"]) and "scheduler" not in TINY
