"""What can be known of a base model in a moment: what it is, what it predicts, and its shapes; no weight is read."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lorakiln.advise import fingerprint
from lorakiln.advise.profiles import Profile, recognise
from lorakiln.base.errors import UserError
from lorakiln.families import header
from lorakiln.families.places import find
from lorakiln.families.sdxl.looks import looks_like

CONFIG = Path(header.__file__).parent / "sdxl" / "config"
MODEL_CONFIG = "lorakiln.model_config"  # header key of a model that is not of SDXL's own size
WORDS = {"epsilon": "epsilon", "eps": "epsilon", "v": "v", "v_prediction": "v", "v-prediction": "v"}


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """`problem` is why it cannot be used ("" if it can). `predicts` and `ztsnr` are what the file says, if it does."""

    base: str
    where: Path | None
    problem: str = ""
    predicts: str = ""
    ztsnr: bool | None = None
    profile: Profile | None = None
    unet: dict[str, Any] | None = None
    text: tuple[dict[str, Any], ...] = ()
    resolution: int = 1024

    @property
    def prediction(self) -> str:
        """What it predicts: its own word, else its profile's, else ''."""
        return self.predicts or (self.profile.prediction if self.profile else "")

    @property
    def zero_snr(self) -> bool:
        """Whether its schedule ends in pure noise."""
        if self.ztsnr is not None:
            return self.ztsnr
        return bool(self.profile and self.profile.ztsnr)


def look_at(base: str) -> BaseFacts:
    """The base by its header, its configuration files and samples of its content.

    Never raises for a bad base: `problem` says what is wrong.
    """
    try:
        where = find(base)
        return _folder(base, where) if where.is_dir() else _file(base, where)
    except UserError as error:
        return BaseFacts(base, None, str(error), profile=recognise(base, {}), unet=shipped("unet"), text=_text({}))


def _file(base: str, where: Path) -> BaseFacts:
    head = header.read(where)
    kind = looks_like(head.entries)
    shared = "lorakiln.shares" in head.metadata  # its other weights lie in a sibling file
    problem = "" if kind == "sdxl" or shared else f"{where}: not an SDXL model; it looks like {kind}"
    own = header.parse(head.metadata, MODEL_CONFIG, where)
    scheduler = own.get("scheduler", {})
    word = scheduler.get("prediction_type") or head.metadata.get("modelspec.prediction_type", "")
    predicts = "v" if "v_pred" in head.entries else WORDS.get(word, "")
    zero = True if "ztsnr" in head.entries else scheduler.get("rescale_betas_zero_snr")
    unet = shipped("unet") | own.get("unet", {})
    profile = _recognise(base, head.metadata, where, predicts)
    return BaseFacts(base, where, problem, predicts, zero, profile, unet, _text(own), own.get("resolution", 1024))


def _folder(base: str, where: Path) -> BaseFacts:
    index = _json(where / "model_index.json")
    name = index.get("_class_name", "")
    problem = "" if name.startswith("StableDiffusionXL") else f"{where}: not an SDXL model; it is {name or 'unknown'}"
    scheduler = _json(where / "scheduler" / "scheduler_config.json")
    predicts = WORDS.get(scheduler.get("prediction_type", ""), "")
    unet = shipped("unet") | _json(where / "unet" / "config.json")
    profile = _recognise(base, {}, weights(where), predicts)
    side = unet.get("sample_size", 128) * 8
    zero = scheduler.get("rescale_betas_zero_snr")
    return BaseFacts(base, where, problem, predicts, zero, profile, unet, _text({}), side)


def _recognise(base: str, metadata: dict[str, str], file: Path | None, predicts: str) -> Profile | None:
    """By what is known of the file's content first, then by the header, then by the name."""
    told = fingerprint.told(fingerprint.content(file)) if file else ""
    return recognise(base, metadata, fingerprint.whole(file) if file else "", predicts, told)


def weights(where: Path) -> Path | None:
    """The file that a base is known by: itself, or the UNet's of a diffusers folder; None where that has none."""
    if where.is_file():
        return where
    return min((where / "unet").glob("*.safetensors"), default=None)


def remember(facts: BaseFacts, profile: Profile) -> None:
    """Keep what the user says of a base that Kiln does not know, by its content. UserError where it cannot be."""
    file = weights(facts.where) if facts.where else None
    if file is None:
        raise UserError(f"--like {profile.name}: {facts.problem or f'{facts.base} holds no weights'}")
    if facts.predicts and facts.predicts != profile.prediction:
        raise UserError(
            f"--like {profile.name}: {facts.base} says that it predicts {facts.predicts}, not {profile.prediction}"
        )
    fingerprint.tell(file, profile.name)


@cache
def shipped(name: str) -> dict[str, Any]:
    """A configuration of true SDXL."""
    return json.loads((CONFIG / f"{name}.json").read_text())


def _text(own: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    return tuple(shipped(name) | own.get(name, {}) for name in ("text_encoder", "text_encoder_2"))


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
