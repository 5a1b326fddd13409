"""Telling from the names of its tensors what a checkpoint is, so that a wrong one is refused in words that help."""

from collections.abc import Mapping

from lorakiln.families.header import Entry

LORA_ENDS = (
    ".lora_down.weight",
    ".lora_up.weight",
    ".lora_A.weight",
    ".lora_B.weight",
    ".lora.down.weight",
    ".hada_w1_a",
    ".lokr_w1",
    ".lokr_w1_a",
    ".dora_scale",
)
# the first row whose words all occur in some key names the file
MARKS: list[tuple[str, tuple[str, ...]]] = [
    ("a Flux model", ("double_blocks.", "single_blocks.")),
    ("an SD3 model", ("joint_blocks.",)),
    ("a ControlNet", ("control_model.",)),
    ("a ControlNet", ("controlnet_cond_embedding.",)),
    ("a ControlNet", ("zero_convs.",)),
    ("an SD 2 model", ("cond_stage_model.model.", "model.diffusion_model.")),
    ("an SD 1.5 model", ("cond_stage_model.transformer.", "model.diffusion_model.")),
    ("an SDXL refiner", ("conditioner.embedders.0.model.", "model.diffusion_model.")),
    ("a bare VAE (give it as vae = ...)", ("encoder.", "decoder.", "quant_conv.")),
    ("a bare VAE (give it as vae = ...)", ("encoder.down", "decoder.up")),
    ("a diffusers UNet alone (give the folder that holds model_index.json)", ("down_blocks.", "time_embedding.")),
    ("a text encoder alone", ("text_model.encoder.layers.",)),
    ("a textual inversion embedding", ("clip_g", "clip_l")),
    ("a textual inversion embedding", ("emb_params",)),
]


def looks_like(entries: Mapping[str, Entry]) -> str:
    """What the file is, in a user's words; "sdxl" for a whole SDXL model in LDM names."""
    if not entries:
        return "an empty file"
    if any(key.endswith(LORA_ENDS) for key in entries):
        return "a LoRA (give a base model; a LoRA to continue goes into init = ...)"
    if "edm_mean" in entries or "edm_vpred.sigma_max" in entries:
        return "an EDM model (Playground, CosXL); epsilon and v models can be trained"
    if "scaled_fp8" in entries or any(key.endswith(".scale_weight") for key in entries):
        return "a scaled fp8 copy, made for drawing; use the fp16 or bf16 file it was made from"
    text = any("embedders" in key or "cond_stage" in key for key in entries)
    unet = any(key.startswith("model.diffusion_model.input_blocks.") for key in entries)
    if unet and any(key.startswith("conditioner.embedders.1.") for key in entries):
        return "sdxl"
    if unet and not text and "model.diffusion_model.label_emb.0.0.weight" in entries:
        return "an SDXL UNet without its text encoders"
    for words, marks in MARKS:
        if all(any(mark in key for key in entries) for mark in marks):
            return words
    return f"something unknown (its first tensor: '{next(iter(entries))}')"
