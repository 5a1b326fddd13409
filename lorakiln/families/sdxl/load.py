"""From an SDXL checkpoint on disk to frozen modules, without ever holding its weights twice."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lorakiln.base.errors import UserError
from lorakiln.diffusion.schedule import Prediction, Schedule
from lorakiln.families import header
from lorakiln.families.sdxl import lean, prediction, source
from lorakiln.families.sdxl.keys import PARTS, Pair, Part
from lorakiln.families.sdxl.model import SDXL
from lorakiln.families.sdxl.source import Checkpoint, Source, Tensors

NOUN: dict[Part, str] = {
    "unet": "the UNet",
    "vae": "the VAE",
    "te1": "the first text encoder",
    "te2": "the second text encoder",
}


def load(
    where: Path,
    *,
    vae: Path | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    predicts: str = "auto",
    ztsnr: str | bool = "auto",
) -> SDXL:
    """The model in a single file or diffusers folder; see `families.load` for the arguments and errors."""
    prediction.check_words(predicts, ztsnr)
    checkpoint = source.open_checkpoint(where)
    if vae is not None:
        checkpoint = source.open_vae(vae, checkpoint)
    device = torch.device(device)
    dtype = dtype or default_dtype(device)
    plans = {part: plan(part, checkpoint) for part in PARTS}  # every part is checked before any weight is read
    modules: dict[Part, nn.Module] = {}
    for part, (module, pairs, notes) in plans.items():
        # fp32: SDXL's VAE overflows in half precision
        fill(module, checkpoint.sources[part], pairs, device, torch.float32 if part == "vae" else dtype)
        modules[part] = module
        checkpoint.notes.extend(notes)
    lean.skip_divisions_by_one(modules["unet"])
    family = SDXL(checkpoint, modules, schedule(checkpoint.scheduler, "epsilon", False))
    _settle_prediction(family, checkpoint, predicts, ztsnr)
    return family


def default_dtype(device: torch.device) -> torch.dtype:
    """fp32 on a CPU; bf16 on a GPU that has it, else fp16."""
    if device.type == "cpu":
        return torch.float32
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def schedule(config: Mapping[str, Any], predicts: Prediction, ztsnr: bool) -> Schedule:
    """The noise schedule of a diffusers scheduler configuration."""
    if config["beta_schedule"] != "scaled_linear":
        raise UserError(f"beta_schedule = '{config['beta_schedule']}': only scaled_linear is known")
    return Schedule.scaled_linear(
        config["beta_start"], config["beta_end"], config["num_train_timesteps"], prediction=predicts, ztsnr=ztsnr
    )


def build(part: Part, config: Mapping[str, Any]) -> nn.Module:
    """An empty module of `part` on the meta device: shapes only, no memory, in eval mode, frozen."""
    with torch.device("meta"):
        if part == "unet":
            from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

            module = UNet2DConditionModel.from_config(dict(config))
        elif part == "vae":
            from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

            module = AutoencoderKL.from_config(dict(config))
        else:
            from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

            kind = CLIPTextModel if part == "te1" else CLIPTextModelWithProjection
            module = kind(CLIPTextConfig(**config))
    assert isinstance(module, nn.Module)  # from_config may return a tuple, for callers that ask it to
    return module.eval().requires_grad_(False)


def plan(part: Part, checkpoint: Checkpoint) -> tuple[nn.Module, list[Pair], list[str]]:
    """(empty module, where each of its tensors is found, notes), after checking names and shapes against the headers.

    Raises UserError for a part that is not there, tensors that are missing, and shapes that are not the module's.
    """
    found = checkpoint.sources.get(part)
    if found is None:
        hint = "; name one with vae = ..." if part == "vae" else "; it needs a whole SDXL model"
        raise UserError(f"{checkpoint.where}: has no weights of {NOUN[part]}{hint}")
    try:
        module = build(part, found.config)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise UserError(f"{found.where}: its configuration of {NOUN[part]} makes no SDXL model ({error})") from error
    expected = module.state_dict()
    pairs = found.pairs(expected)
    _check(found, pairs, expected)
    spare = sorted(found.entries.keys() - {pair.ldm for pair in pairs})
    if not spare:
        return module, pairs, []
    return module, pairs, [f"{found.where}: {len(spare)} unknown tensors of {NOUN[part]} left out (first: {spare[0]})"]


def fill(module: nn.Module, found: Source, pairs: list[Pair], device: torch.device, dtype: torch.dtype) -> None:
    """Give an empty module its weights, one tensor at a time.

    Weights that are kept on the CPU in the file's own type are not copied: they stay memory-mapped.
    """
    tensors = Tensors(found.entries)
    state: dict[str, Tensor] = {}
    for pair in pairs:
        for name, tensor in pair.to_ours(tensors[pair.ldm]):
            state[name] = tensor.to(device, dtype)
    module.load_state_dict(state, assign=True, strict=True)
    module.requires_grad_(False)
    for name, buffer in list(module.named_buffers()):
        assert name.endswith("position_ids"), name  # the only buffer that files need not hold
        home, _, last = name.rpartition(".")
        places = torch.arange(buffer.shape[-1], device=device).expand(buffer.shape)
        module.get_submodule(home).register_buffer(last, places, persistent=False)


def _check(found: Source, pairs: list[Pair], expected: Mapping[str, Tensor]) -> None:
    noun, where = NOUN[found.part], found.where
    missing = [pair.ldm for pair in pairs if pair.ldm not in found.entries]
    if missing:
        raise UserError(
            f"{where}: {len(missing)} of {len(pairs)} tensors of {noun} are missing (first: {missing[0]}); "
            "the file is incomplete or not SDXL"
        )
    for pair in pairs:
        shape, wanted = found.entries[pair.ldm].shape, tuple(pair.to_ldm(expected).shape)
        if pair.how == "conv" and header.count(shape) == header.count(wanted):
            shape = wanted  # newer tools write this matrix without its two ones
        if shape != wanted:
            raise UserError(f"{where}: '{pair.ldm}' of {noun} has shape {list(shape)}, not SDXL's {list(wanted)}")


def _settle_prediction(family: SDXL, checkpoint: Checkpoint, predicts: str, ztsnr: str | bool) -> None:
    """Set the family's schedule from file, recipe and probe; what was assumed goes into its notes."""
    where = checkpoint.where.name
    probed = prediction.probe_prediction(family)
    word, notes = prediction.decide(where, predicts, checkpoint.prediction, probed)
    stated = checkpoint.prediction is not None and checkpoint.prediction[0] == "v"
    zero, more = prediction.decide_ztsnr(where, ztsnr, checkpoint.ztsnr, word, stated)
    family.schedule = schedule(checkpoint.scheduler, word, zero)
    family.notes += notes + more
