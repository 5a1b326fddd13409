"""An SDXL checkpoint on disk, as a table of tensors and a configuration for each part, whatever its layout."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lorakiln.base import pickles
from lorakiln.base.errors import UserError, nearest
from lorakiln.families import header
from lorakiln.families.header import Entry
from lorakiln.families.sdxl import keys
from lorakiln.families.sdxl.keys import PARTS, Pair, Part
from lorakiln.families.sdxl.looks import looks_like

CONFIG = Path(__file__).parent / "config"
CONFIG_NAME: dict[Part, str] = {"unet": "unet", "vae": "vae", "te1": "text_encoder", "te2": "text_encoder_2"}
MODEL_CONFIG = "lorakiln.model_config"  # header key: {"unet": {...}, ..., "resolution": 128} over the shipped ones
SHARES = "lorakiln.shares"  # header key: a sibling file whose tensors fill in what this one lacks
# old names of the VAE's attention, still met in diffusers folders
OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
# what files carry besides weights that we use
HARMLESS = ("position_ids", "logit_scale")


@dataclass(frozen=True, slots=True)
class Source:
    """One part's tensors: `entries` by LDM key (prefix included) or by the module's own state-dict names."""

    part: Part
    where: Path
    layout: Literal["ldm", "diffusers"]
    entries: dict[str, Entry]
    config: dict[str, Any]

    def pairs(self, names: Iterable[str]) -> list[Pair]:
        """How each of the module's state-dict `names` is found here."""
        if self.layout == "ldm":
            return keys.pairs(self.part, names, self.config)
        return [Pair(_plain(self.part, name), (name,)) for name in names]

    def digest(self) -> str:
        """SHA-256 of names, types, shapes and bytes: the weights as they are on disk. Reads them all."""
        tensors, total = Tensors(self.entries), hashlib.sha256()
        for key in sorted(self.entries):
            entry = self.entries[key]
            total.update(f"{key} {entry.dtype} {entry.shape}\n".encode())
            total.update(tensors[key].contiguous().reshape(-1).view(torch.uint8).numpy())
        return total.hexdigest()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A base as found on disk: its parts, its noise schedule, and what it says it predicts and why we think so."""

    where: Path
    sources: dict[Part, Source]
    scheduler: dict[str, Any]
    resolution: int
    prediction: tuple[str, str] | None = None  # ("v", "its v_pred key")
    ztsnr: tuple[bool, str] | None = None
    notes: list[str] = field(default_factory=list)


class Tensors(Mapping[str, Tensor]):
    """Tensors read from their files when asked for; memory-mapped, so that unread ones cost nothing."""

    def __init__(self, entries: Mapping[str, Entry]):
        self._entries = entries
        self._open = cache(_open)

    def __getitem__(self, key: str) -> Tensor:
        entry = self._entries[key]
        return self._open(entry.file).get_tensor(entry.key)

    def __iter__(self):
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def open_checkpoint(where: Path) -> Checkpoint:
    """The SDXL model in a single file or a diffusers folder; only headers and configurations are read."""
    return _folder(where) if where.is_dir() else _single(where)


def open_vae(where: Path, base: Checkpoint) -> Checkpoint:
    """`base` with its VAE replaced by the one in a file or folder of its own, or in another checkpoint."""
    if where.is_dir():
        home = where / "vae" if (where / "vae").is_dir() else where
        return _with(base, _component("vae", home))
    head = header.read(where)
    prefix = keys.LDM_PREFIX["vae"]
    inner = {key.removeprefix(prefix): entry for key, entry in head.entries.items()
             if key.startswith((prefix, "encoder.", "decoder.", "quant_conv.", "post_quant_conv."))}  # fmt: skip
    if "decoder.conv_in.weight" not in inner:
        raise UserError(f"vae = '{where}': not a VAE; it looks like {looks_like(head.entries)}")
    base_vae = base.sources.get("vae")
    config = dict(base_vae.config) if base_vae else shipped("vae")
    config |= header.parse(head.metadata, MODEL_CONFIG, where).get("vae", {})
    if any("mid_block" in key for key in inner):
        table = {_plain("vae", key): entry for key, entry in inner.items()}
        return _with(base, Source("vae", where, "diffusers", table, config))
    table = {prefix + key: entry for key, entry in inner.items()}
    return _with(base, Source("vae", where, "ldm", table, config))


def shipped(name: str) -> dict[str, Any]:
    """A configuration of true SDXL: "unet", "vae", "text_encoder", "text_encoder_2" or "scheduler"."""
    return json.loads((CONFIG / f"{name}.json").read_text())


def _single(where: Path) -> Checkpoint:
    head = header.read(where)
    entries, own = dict(head.entries), header.parse(head.metadata, MODEL_CONFIG, where)
    if SHARES in head.metadata:
        sibling = where.parent / Path(head.metadata[SHARES]).name
        if not sibling.exists():
            raise UserError(f"{where}: needs {sibling.name} beside it (they share weights), which is not there")
        entries = header.read(sibling).entries | entries
    kind = looks_like(entries)
    if kind != "sdxl":
        raise UserError(f"{where}: not an SDXL model; it looks like {kind}")
    configs = _configs(own, where)
    sources = {}
    for part in PARTS:
        prefix = keys.LDM_PREFIX[part]
        table = {key: entry for key, entry in entries.items() if key.startswith(prefix) and not key.endswith(HARMLESS)}
        if table:
            sources[part] = Source(part, where, "ldm", table, configs[CONFIG_NAME[part]])
    resolution = own.get("resolution", configs["unet"]["sample_size"] * 8)
    said, zero, notes = _claims(entries, head.metadata, own.get("scheduler", {}), where)
    return Checkpoint(where, sources, configs["scheduler"], resolution, said, zero, notes)


def _folder(where: Path) -> Checkpoint:
    index = _read_json(where / "model_index.json", f"{where}: not a diffusers folder (no model_index.json)")
    kind = index.get("_class_name", "")
    if not kind.startswith("StableDiffusionXL") or not (where / "text_encoder").is_dir():
        raise UserError(f"{where}: not an SDXL model; its model_index.json says {kind or 'nothing'}")
    names = {part: name for part, name in CONFIG_NAME.items() if (where / name).is_dir()}
    sources = {part: _component(part, where / name) for part, name in names.items()}
    if "unet" not in sources:
        raise UserError(f"{where}: has no 'unet' folder")
    own = _read_json(where / "scheduler" / "scheduler_config.json", f"{where}: has no scheduler/scheduler_config.json")
    if own.get("_class_name", "").startswith("EDM"):
        raise UserError(f"{where}: an EDM model ({own['_class_name']}); epsilon and v models can be trained")
    scheduler = shipped("scheduler")
    scheduler |= {key: own[key] for key in scheduler if key in own}
    said, zero, notes = _claims({}, {}, own, where / "scheduler")
    resolution = sources["unet"].config.get("sample_size", 128) * 8
    return Checkpoint(where, sources, scheduler, resolution, said, zero, notes)


def _component(part: Part, folder: Path) -> Source:
    """A part in its own folder: config.json and one or several .safetensors files."""
    config = _read_json(folder / "config.json", f"{folder}: has no config.json")
    merged = shipped(CONFIG_NAME[part]) if part in ("te1", "te2") else {}
    merged |= {key: value for key, value in config.items() if not key.startswith("_")}
    table: dict[str, Entry] = {}
    for file in _weight_files(folder):
        table |= header.read(file).entries
    table = {_plain(part, key): entry for key, entry in table.items() if not key.endswith(HARMLESS)}
    return Source(part, folder, "diffusers", table, merged)


def _weight_files(folder: Path) -> list[Path]:
    """The component's files: full precision before fp16, one file before shards."""
    for pattern in ("{}.safetensors", "{}.fp16.safetensors"):
        for stem in ("diffusion_pytorch_model", "model"):
            file = folder / pattern.format(stem)
            if file.exists():
                return [file]
    for index in sorted(folder.glob("*.safetensors.index*.json")):
        return [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    pickled = next((file for file in sorted(folder.iterdir()) if file.suffix in pickles.SUFFIXES), None)
    if pickled:
        raise UserError(f"{pickled}: only .safetensors is read; {header.HOW_TO_CONVERT}")
    raise UserError(f"{folder}: has no .safetensors file")


def _configs(own: Mapping[str, Any], where: Path) -> dict[str, dict[str, Any]]:
    """True SDXL's configurations with the file's own on top."""
    names = [*CONFIG_NAME.values(), "scheduler"]
    for key in own:
        if key not in (*names, "resolution", "empty_prompt"):
            raise UserError(f"{where}: unknown '{key}' in its header's '{MODEL_CONFIG}'{nearest(key, names)}")
    if own.get("empty_prompt", "encoded") != "encoded":
        raise UserError(f"{where}: empty_prompt = '{own['empty_prompt']}': only 'encoded' is known")
    return {name: shipped(name) | own.get(name, {}) for name in names}


def _claims(
    entries: Mapping[str, Entry], metadata: Mapping[str, str], scheduler: Mapping[str, Any], where: Path
) -> tuple[tuple[str, str] | None, tuple[bool, str] | None, list[str]]:
    """What the file says it predicts and whether its schedule ends in pure noise, each with where it says so."""
    said: list[tuple[str, str]] = []
    if "v_pred" in entries:
        said.append(("v", "its v_pred key"))
    if "prediction_type" in scheduler:
        said.append((_prediction(scheduler["prediction_type"], where), "its scheduler's prediction_type"))
    if metadata.get("modelspec.prediction_type"):
        said.append((_prediction(metadata["modelspec.prediction_type"], where), "modelspec.prediction_type"))
    notes = []
    if len({word for word, _ in said}) > 1:
        told = " and ".join(f"{why} says {word}" for word, why in said)
        notes.append(f"{where}: {told}; the first is taken")
    zero = None
    if "ztsnr" in entries:
        zero = (True, "its ztsnr key")
    elif "rescale_betas_zero_snr" in scheduler:
        zero = (bool(scheduler["rescale_betas_zero_snr"]), "its scheduler's rescale_betas_zero_snr")
    return (said[0] if said else None), zero, notes


def _prediction(word: str, where: Path) -> str:
    known = {"epsilon": "epsilon", "eps": "epsilon", "v": "v", "v_prediction": "v", "v-prediction": "v"}
    if word not in known:
        raise UserError(f"{where}: predicts '{word}'; epsilon and v models can be trained")
    return known[word]


def _plain(part: Part, key: str) -> str:
    """A state-dict name as today's modules have it, from what older files wrote."""
    if part == "te1":
        return key.removeprefix("text_model.")
    if part == "vae":
        for old, new in OLD_ATTENTION.items():
            key = key.replace(old, new)
    return key


def _with(base: Checkpoint, vae: Source) -> Checkpoint:
    return replace(base, sources=base.sources | {"vae": vae})


def _read_json(path: Path, missing: str) -> dict[str, Any]:
    if not path.exists():
        raise UserError(missing)
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: not JSON") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: must hold a JSON object")
    return value


def _open(file: Path):
    from safetensors import safe_open

    return safe_open(str(file), framework="pt")
