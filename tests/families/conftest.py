"""The tiny SDXL in the shapes that the tests of this room need: a file, a loaded family, a diffusers folder."""

import json
from pathlib import Path

import pytest

from lorakiln.families.family import Family
from lorakiln.families.sdxl.keys import PARTS
from lorakiln.families.sdxl.source import CONFIG_NAME, shipped
from tests.tiny import tiny_config, tiny_family, tiny_sdxl_file


@pytest.fixture(scope="session")
def family() -> Family:
    """Do not change it."""
    return tiny_family()


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory) -> Path:
    """Do not change it."""
    return tiny_sdxl_file(tmp_path_factory.mktemp("file") / "tiny.safetensors")


@pytest.fixture(scope="session")
def config_folder(tmp_path_factory) -> Path:
    """Configurations alone, as `from_single_file(config=...)` of diffusers wants them to stay offline."""
    return write_configs(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="session")
def diffusers_folder(tmp_path_factory, family) -> Path:
    """The tiny model as diffusers and transformers themselves save it."""
    folder = write_configs(tmp_path_factory.mktemp("diffusers"))
    family.unet.save_pretrained(folder / "unet")
    family.vae.save_pretrained(folder / "vae")
    for module, name in zip(family.text_encoders, ("text_encoder", "text_encoder_2"), strict=True):
        module.save_pretrained(folder / name)
    return folder


def write_configs(folder: Path, configs: dict[str, dict] | None = None) -> Path:
    """A diffusers folder without weights: model_index.json, the parts' config.json, scheduler and tokenizers."""
    configs = configs or {CONFIG_NAME[part]: tiny_config(part) for part in PARTS}
    index = {"_class_name": "StableDiffusionXLPipeline", "_diffusers_version": "0.42.0"}
    classes = {
        "unet": ("diffusers", "UNet2DConditionModel"),
        "vae": ("diffusers", "AutoencoderKL"),
        "text_encoder": ("transformers", "CLIPTextModel"),
        "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
    }
    for name, config in configs.items():
        library, kind = classes[name]
        index[name] = [library, kind]
        own = {"_class_name": kind} if library == "diffusers" else {"model_type": "clip_text_model"}
        _write(folder / name / "config.json", own | config)
    index["scheduler"] = ["diffusers", "EulerDiscreteScheduler"]
    scheduler = {"_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.42.0"} | shipped("scheduler")
    _write(folder / "scheduler" / "scheduler_config.json", scheduler)
    _write(folder / "model_index.json", index)
    return folder


def _write(path: Path, value: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
