"""Bad input to a whole run: one clear line that names the file or setting, and nothing half-written."""

import errno
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lorakiln.base.errors import UserError
from lorakiln.train.step import Step
from tests.runs.conftest import draw_picture, events
from tests.tiny import tiny_metadata, tiny_tensors, write_safetensors


@pytest.fixture
def folder(tmp_path):
    """One good picture with its caption, to put a bad one beside."""
    path = tmp_path / "set"
    path.mkdir()
    draw_picture(path / "good.png", (64, 64), 1)
    (path / "good.txt").write_text("good")
    return path


@pytest.fixture
def refused(run, tmp_path):
    """The one line with which a run is refused; no run folder may be left, and no cached latents of bad pictures."""

    def get(**changes) -> str:
        with pytest.raises(UserError) as caught:
            run(**changes)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "runs" / "a").exists()
        return str(caught.value)

    return get


def truncated(path: Path) -> None:
    draw_picture(path, (64, 64), 2)
    path.write_bytes(path.read_bytes()[:-60])


def animated(path: Path) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("bad.png", truncated),
        ("bad.jpg", lambda path: path.write_text("this is no picture")),
        ("bad.webp", lambda path: path.write_bytes(b"")),
        ("bad.gif", animated),
    ],
)
def test_a_picture_that_cannot_be_used_is_named(refused, folder, name, write):
    write(folder / name)
    (folder / "bad.txt").write_text("bad")
    latents = "disk" if name != "bad.png" else "off"  # nothing is kept, and looked at all the same
    table = {"folder": str(folder), "bucket_step": 16}
    assert str(folder / name) in refused(dataset=[table], cache={"latents": latents})


def test_pictures_of_every_kind_are_read_rightly(run, folder):
    """CMYK, 16 bits, a palette with transparency, rotated by EXIF: read, not refused."""
    Image.new("CMYK", (64, 64), (0, 255, 255, 0)).save(folder / "cmyk.jpg")
    Image.new("I;16", (64, 64), 40_000).save(folder / "deep.png")
    Image.new("P", (64, 64)).save(folder / "palette.png", transparency=0)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (96, 48)).save(folder / "rotated.jpg", exif=exif)
    for picture in ("cmyk", "deep", "palette", "rotated"):
        (folder / f"{picture}.txt").write_text(picture)
    result = run(dataset=[{"folder": str(folder), "bucket_step": 16}], train={"epochs": 1})
    assert events(result)


def test_a_picture_without_a_caption_is_named(refused, folder):
    draw_picture(folder / "bare.png", (64, 64), 3)
    assert "bare.png: has no caption file" in refused(dataset=[{"folder": str(folder)}])


PRODIGY = {"name": "prodigy", "lr": 1.0}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"adapter": {"use_dora": True}}, "unknown setting 'adapter.use_dora'; did you mean 'dora = true'?"),
        ({"use_dora": True}, "unknown setting 'use_dora'; did you mean 'dora = true' in [adapter]?"),
        ({"adapter": {"network_dim": 8}}, "did you mean 'rank'?"),
        ({"adapter": {"kind": "loha", "factor": 4}}, "adapter.factor: loha has no such option (it has alpha, conv_"),
        ({"adapter": {"alpha": 0}}, "adapter.alpha = 0: must be at least 1e-06"),
        ({"adapter": {"conv_rank": 2, "conv_alpha": 0}}, "adapter.conv_alpha = 0: must be at least 1e-06"),
        ({"adapter": {"ranks": [{"pattern": "*", "rank": 2, "alpha": 0}]}}, "adapter.ranks.0.alpha = 0: must be"),
        ({"optim": PRODIGY | {"text_lr": 0.5}}, "need one learning rate, not unet 1, te1 0.5, te2 0.5; set optim."),
        ({"optim": PRODIGY | {"text_lr": 1.0, "text2_lr": 0.5}}, "one learning rate, not unet 1, te1 1, te2 0.5"),
        ({"optim": PRODIGY | {"loraplus": 16.0}}, "not unet 1, unet x16 16; set optim.text_lr to 0 or optim.lr, and"),
        ({"optim": PRODIGY | {"rates": [{"pattern": "*attn2*", "factor": 0.5}]}}, "leave optim.rates and optim.lora"),
        ({"optim": {"warmup": 100}}, "optim.warmup = 100: is longer than the run of 12 steps"),
        ({"optim": {"options": {"momentum": 1}}}, "has no option 'momentum'; it has betas"),
        ({"optim": {"schedule_options": {"cycles": 2}}}, "schedule 'cosine' has no option 'cycles'; it has min_ratio"),
    ],
    ids=lambda one: "" if isinstance(one, dict) else one[:40],
)  # fmt: skip
def test_a_choice_that_cannot_be_what_it_says_is_refused(refused, changes, line):
    if "optim" in changes:
        changes = {"optim": {"warmup": 0.0} | changes["optim"]}
    assert line in refused(**changes)


def test_an_empty_folder_is_named(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    assert f"{tmp_path / 'empty'}: holds no picture" in refused(dataset=[{"folder": str(tmp_path / "empty")}])


def test_a_pickle_is_no_base(refused, tmp_path):
    torch.save({"model": torch.zeros(2)}, tmp_path / "model.ckpt")
    assert "model.ckpt" in refused(base=str(tmp_path / "model.ckpt"))


def test_a_lora_is_no_base_and_no_other_familys_lora_is_continued(refused, tmp_path):
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    tensors = {f"{name}.lora_down.weight": torch.zeros(4, 320), f"{name}.lora_up.weight": torch.zeros(320, 4)}
    save_file(tensors | {f"{name}.alpha": torch.tensor(4.0)}, tmp_path / "sd15.safetensors")
    assert "sd15.safetensors" in refused(base=str(tmp_path / "sd15.safetensors"))
    text = refused(init=str(tmp_path / "sd15.safetensors"))
    assert ("sd15.safetensors" in text and "another" in text) or "not a LoRA of this model family" in text


def test_a_vae_that_gives_nan_names_the_picture_and_caches_nothing(refused, folder, tmp_path):
    tensors = tiny_tensors()
    name = "first_stage_model.quant_conv.weight"
    tensors[name] = torch.full_like(tensors[name], float("nan"))
    base = write_safetensors(tmp_path / "nan.safetensors", tensors, tiny_metadata())
    text = refused(base=str(base), dataset=[{"folder": str(folder), "bucket_step": 16}])
    assert "good.png" in text and "NaN" in text
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_full_disk_stops_the_run_and_keeps_the_last_state(run, monkeypatch, tmp_path):
    real, states = Path.replace, 0

    def replace(self, target):
        nonlocal states
        states += "state-" in str(target)
        if states == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(UserError, match=r"state-00000003.safetensors: the disk is full"):
        run(save={"steps": 1})
    monkeypatch.setattr(Path, "replace", real)
    states_left = sorted(path.name for path in (tmp_path / "runs" / "a" / "state").iterdir())
    assert states_left == ["state-00000001.safetensors", "state-00000002.safetensors"]
    assert len(events(run(save={"steps": 1}, resume=True))) == 12


def test_a_full_gpu_names_three_settings_that_help(run, monkeypatch):
    def losses(self, batch, step):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(Step, "losses", losses)
    with pytest.raises(UserError) as caught:
        run()
    for name in ("train.checkpointing", "train.batch", "dataset.resolution"):
        assert name in str(caught.value)
