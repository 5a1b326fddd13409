"""Epsilon or v: what the file says, what the recipe asks, and what the weights do."""

import json

import pytest
import torch

from lorakiln import families
from lorakiln.base.errors import UserError
from lorakiln.families.sdxl import load as sdxl_load
from lorakiln.families.sdxl import prediction
from lorakiln.families.sdxl.prediction import decide, decide_ztsnr, probe_prediction
from tests.families.test_load import copy_folder
from tests.tiny import tiny_family, tiny_metadata, tiny_tensors, write_safetensors

SAYS_V, SAYS_EPSILON = ("v", "its v_pred key"), ("epsilon", "modelspec.prediction_type")


def planted(kind: str, quality: float = 0.9):
    """A family whose UNet answers as a trained model does: it knows noise from a fixed picture, `quality` well."""
    family = tiny_family()
    schedule = family.schedule
    rng = torch.Generator().manual_seed(9)
    picture = torch.nn.functional.interpolate(torch.randn(1, 4, 2, 2, generator=rng), size=(8, 8), mode="bilinear")

    def predict(noised, timestep, text, time_ids):
        signal, noise = (rate[:, None, None, None] for rate in schedule.rates(timestep))
        # near the end the picture is a memory, near the start it shows through as the coarse part of the input
        coarse = torch.nn.functional.avg_pool2d(noised, 4).repeat_interleave(4, 2).repeat_interleave(4, 3) / signal
        seen = signal**2 * coarse + noise**2 * picture
        guess = (noised - signal * seen) / noise  # of the noise
        wrong = torch.randn(noised.shape, generator=rng)
        guess = quality * guess + (1 - quality**2) ** 0.5 * wrong
        return guess if kind == "epsilon" else signal * guess - noise * seen

    family.predict = predict
    return family


@pytest.mark.parametrize("quality", [1.0, 0.8])
@pytest.mark.parametrize("kind", ["epsilon", "v"])
def test_the_probe_tells_a_planted_model(kind, quality):
    assert probe_prediction(planted(kind, quality)) == kind


def test_the_probe_says_nothing_of_untrained_weights(family):
    assert probe_prediction(family) is None
    assert probe_prediction(family, seeds=[7]) is None


def test_the_probe_refuses_nan():
    family = tiny_family()
    family.unet.conv_out.bias.data[0] = float("nan")
    with pytest.raises(UserError, match="output is NaN or infinite"):
        probe_prediction(family)


def test_the_weights_decide_where_the_file_says_nothing_and_it_is_told():
    word, notes = decide("m", "auto", None, "v")
    assert word == "v"
    assert notes == ["m does not say what it predicts; by its output at t = 999 it is a velocity (v) model"]
    assert decide("m", "auto", None, "epsilon")[0] == "epsilon"


def test_agreement_needs_no_words():
    assert decide("m", "auto", SAYS_V, "v") == ("v", [])
    assert decide("m", "v", SAYS_V, "v") == ("v", [])
    assert decide("m", "epsilon", SAYS_EPSILON, "epsilon") == ("epsilon", [])


@pytest.mark.parametrize("said", [None, SAYS_V, SAYS_EPSILON])
def test_a_recipe_against_the_weights_is_an_error(said):
    with pytest.raises(UserError, match=r"prediction = 'epsilon': m is a velocity \(v\) model by its output"):
        decide("m", "epsilon", said, "v")
    with pytest.raises(UserError, match=r"prediction = 'v': m is a noise \(epsilon\) model by its output"):
        decide("m", "v", said, "epsilon")


def test_a_file_against_its_weights_is_an_error_with_a_way_out():
    with pytest.raises(UserError, match=r"its v_pred key says v, but .* set prediction = 'epsilon'"):
        decide("m", "auto", SAYS_V, "epsilon")
    word, notes = decide("m", "epsilon", SAYS_V, "epsilon")
    assert word == "epsilon"
    assert len(notes) == 1


def test_a_recipe_against_the_file_is_an_error_when_the_weights_are_silent():
    with pytest.raises(UserError, match=r"prediction = 'epsilon': m is a velocity \(v\) model by its v_pred key"):
        decide("m", "epsilon", SAYS_V, None)
    assert decide("m", "v", SAYS_V, None)[0] == "v"
    assert decide("m", "v", None, None)[0] == "v"
    assert decide("m", "auto", SAYS_V, None)[0] == "v"
    assert decide("m", "auto", None, None) == (
        "epsilon",
        ["m: its output at t = 999 does not show what it predicts: epsilon assumed; nothing says so"],
    )


def test_zero_terminal_snr_is_read_asked_for_or_assumed():
    key = (True, "its ztsnr key")
    assert decide_ztsnr("m", "auto", key, "v", True) == (True, [])
    assert decide_ztsnr("m", "auto", None, "v", True) == (False, [])
    assert decide_ztsnr("m", "auto", None, "epsilon", False) == (False, [])
    zero, notes = decide_ztsnr("m", "auto", None, "v", False)
    assert zero
    assert len(notes) == 1
    zero, notes = decide_ztsnr("m", "off", key, "v", True)
    assert not zero
    assert "its ztsnr key of m says otherwise" in notes[0]
    assert decide_ztsnr("m", True, None, "v", True) == (True, [])
    with pytest.raises(UserError, match="needs a v model"):
        decide_ztsnr("m", "on", None, "epsilon", True)


@pytest.mark.parametrize(
    ("keys", "metadata", "expected"),
    [
        (["v_pred", "ztsnr"], {}, ("v", True)),
        (["v_pred"], {}, ("v", False)),
        ([], {"modelspec.prediction_type": "v"}, ("v", False)),
        ([], {"modelspec.prediction_type": "epsilon"}, ("epsilon", False)),
        ([], {}, ("epsilon", False)),
    ],
)
def test_a_single_file_says_it_by_keys_or_modelspec(keys, metadata, expected, tmp_path):
    tensors = tiny_tensors() | {key: torch.zeros(1) for key in keys}
    path = write_safetensors(tmp_path / "said.safetensors", tensors, tiny_metadata() | metadata)
    schedule = families.load(path).schedule
    assert (schedule.prediction, schedule.ztsnr) == expected
    assert (schedule.alphas_cumprod_T[-1] == 0) == expected[1]


def test_a_header_configuration_says_it_in_diffusers_words(tmp_path):
    metadata = tiny_metadata(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    schedule = families.load(write_safetensors(tmp_path / "m.safetensors", tiny_tensors(), metadata)).schedule
    assert (schedule.prediction, schedule.ztsnr) == ("v", True)


def test_a_folder_says_it_in_its_scheduler(diffusers_folder, tmp_path):
    folder = copy_folder(diffusers_folder, tmp_path / "v")
    path = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text()) | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    path.write_text(json.dumps(config))
    schedule = families.load(folder).schedule
    assert (schedule.prediction, schedule.ztsnr) == ("v", True)
    with pytest.raises(UserError, match="prediction = 'epsilon'"):
        families.load(folder, prediction="epsilon")


def test_two_claims_in_one_file_are_told(tmp_path):
    tensors = tiny_tensors() | {"v_pred": torch.zeros(1)}
    metadata = tiny_metadata() | {"modelspec.prediction_type": "epsilon"}
    family = families.load(write_safetensors(tmp_path / "m.safetensors", tensors, metadata))
    assert family.schedule.prediction == "v"
    assert any("its v_pred key says v and modelspec.prediction_type says epsilon" in note for note in family.notes)


def test_loading_asks_the_probe(tiny_file, monkeypatch):
    monkeypatch.setattr(prediction, "probe_prediction", lambda family: "v")
    family = sdxl_load.load(tiny_file)
    assert family.schedule.prediction == "v"
    assert family.schedule.ztsnr
    with pytest.raises(UserError, match=r"prediction = 'epsilon': tiny\.safetensors is a velocity"):
        sdxl_load.load(tiny_file, predicts="epsilon")
