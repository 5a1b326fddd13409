"""Bases are recognised by content, header or name, and never guessed."""

import json
import struct

import pytest

from lorakiln.advise import fingerprint
from lorakiln.advise.base_model import look_at, remember
from lorakiln.advise.profiles import PROFILES, recognise
from lorakiln.base.errors import UserError


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("models/ponyDiffusionV6XL_v6StartWithThisOne.safetensors", "pony"),
        ("C:\\models\\autismmixSDXL_autismmixPony.safetensors", "pony"),
        ("sd_xl_base_1.0.safetensors", "sdxl"),
        ("stabilityai/stable-diffusion-xl-base-1.0", "sdxl"),
        ("Illustrious-XL-v0.1.safetensors", "illustrious"),
        ("NoobAI-XL-v1.1.safetensors", "noob-eps"),
        ("NoobAI-XL-Vpred-v1.0.safetensors", "noob-v"),
        ("animagine-xl-3.1.safetensors", "animagine"),
        ("starter", "starter"),
        ("starter-v", "starter-v"),
        ("juggernautXL_v9.safetensors", None),
        ("ponyDiffusion_v-pred_mix.safetensors", None),
        ("pony/juggernautXL.safetensors", None),
    ],
)
def test_a_base_is_recognised_by_its_name(name, profile):
    found = recognise(name, {})
    assert (found.name if found else None) == profile


def test_content_and_header_outrank_the_name():
    assert recognise("mine.safetensors", {}, PROFILES["pony"].sha256[0].upper()).name == "pony"
    assert recognise("mine.safetensors", {"modelspec.title": "Animagine XL 4.0"}).name == "animagine"


def test_what_the_file_predicts_separates_the_two_noobs_and_rejects_a_wrong_name():
    assert recognise("noobai.safetensors", {}, predicts="v").name == "noob-v"
    assert recognise("noob_vpred.safetensors", {}, predicts="epsilon").name == "noob-eps"
    assert recognise("ponyDiffusion.safetensors", {}, predicts="v") is None


def write(path, keys, metadata=None):
    table = {"__metadata__": metadata or {}}
    table |= {key: {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]} for key in keys}
    head = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"\0\0")
    return str(path)


SDXL = ["model.diffusion_model.input_blocks.0.0.weight", "conditioner.embedders.1.model.x", "conditioner.embedders.0.x"]


def test_a_velocity_model_is_known_by_its_keys(tmp_path):
    facts = look_at(write(tmp_path / "noob.safetensors", [*SDXL, "v_pred", "ztsnr"]))
    assert (facts.problem, facts.predicts, facts.zero_snr, facts.profile.name) == ("", "v", True, "noob-v")
    facts = look_at(write(tmp_path / "noob.safetensors", SDXL))
    assert (facts.predicts, facts.prediction, facts.zero_snr, facts.profile.name) == ("", "epsilon", False, "noob-eps")


def test_a_hub_cache_names_its_files_by_their_whole_hash(tmp_path):
    (tmp_path / "blobs").mkdir()
    blob = tmp_path / "blobs" / PROFILES["pony"].sha256[0]
    write(blob, SDXL)
    (tmp_path / "mine.safetensors").symlink_to(blob)
    assert look_at(str(tmp_path / "mine.safetensors")).profile.name == "pony"


def test_an_unknown_base_is_told_once_and_known_by_its_content(tmp_path):
    path = tmp_path / "mine.safetensors"
    facts = look_at(write(path, SDXL))
    assert facts.profile is None
    remember(facts, PROFILES["illustrious"])
    assert look_at(str(path)).profile.name == "illustrious"
    path.rename(tmp_path / "other.safetensors")
    assert look_at(str(tmp_path / "other.safetensors")).profile.name == "illustrious"
    kept = json.loads((tmp_path / "ledger" / fingerprint.FILE).read_text())["files"]
    assert [name.rpartition("/")[2] for name in kept] == ["other.safetensors"], "what is gone is forgotten"
    assert look_at(write(path, [*SDXL, "one.more"])).profile is None, "other content under the same name"


def test_what_the_file_says_of_itself_is_not_talked_over(tmp_path):
    facts = look_at(write(tmp_path / "mine.safetensors", [*SDXL, "v_pred"]))
    with pytest.raises(UserError, match="says that it predicts v, not epsilon"):
        remember(facts, PROFILES["pony"])
    with pytest.raises(UserError, match="no such file"):
        remember(look_at(str(tmp_path / "gone.safetensors")), PROFILES["pony"])


def test_a_sampled_hash_sees_both_ends_and_is_kept_by_path_size_and_time(tmp_path, monkeypatch):
    path = tmp_path / "large"
    size = fingerprint.HEAD + 40 * fingerprint.PIECE

    def written(place):
        with path.open("wb") as stream:
            stream.truncate(size)
            stream.seek(place)
            stream.write(b"x")
        return fingerprint.sampled(path)

    places = (0, fingerprint.HEAD - 1, size - 1, size - fingerprint.PIECE)
    assert len({written(place) for place in places}) == len(places)
    known = fingerprint.content(path)
    monkeypatch.setattr(fingerprint, "sampled", lambda path: "read anew")
    assert fingerprint.content(path) == known
    path.touch()
    assert fingerprint.content(path) == "read anew"
    monkeypatch.setenv("KILN_LEDGER", "off")
    assert fingerprint.content(path) == "read anew" and not fingerprint.told(known)


def test_what_cannot_be_trained_is_told(tmp_path):
    assert "Flux" in look_at(write(tmp_path / "f.safetensors", ["double_blocks.0.x", "single_blocks.0.x"])).problem
    assert "a LoRA" in look_at(write(tmp_path / "l.safetensors", ["a.lora_down.weight"])).problem
    assert "no such file" in look_at(str(tmp_path / "nowhere.safetensors")).problem
    (tmp_path / "p.ckpt").write_bytes(b"PK")
    assert "only .safetensors" in look_at(str(tmp_path / "p.ckpt")).problem


def test_a_folder_says_what_it_predicts(tmp_path):
    for name, table in {
        "model_index.json": {"_class_name": "StableDiffusionXLPipeline"},
        "scheduler/scheduler_config.json": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
        "unet/config.json": {"sample_size": 64},
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(table))
    facts = look_at(str(tmp_path))
    assert (facts.problem, facts.predicts, facts.zero_snr, facts.resolution) == ("", "v", True, 512)


def test_a_model_of_another_size_is_seen_with_its_own_shapes(tmp_path):
    own = {"unet": {"block_out_channels": [32, 64, 64]}, "text_encoder_2": {"hidden_size": 40}, "resolution": 64}
    facts = look_at(write(tmp_path / "tiny.safetensors", SDXL, {"lorakiln.model_config": json.dumps(own)}))
    assert not facts.problem and facts.resolution == 64 and facts.unet["block_out_channels"] == [32, 64, 64]
    assert facts.text[1]["hidden_size"] == 40 and facts.text[0]["hidden_size"] == 768
