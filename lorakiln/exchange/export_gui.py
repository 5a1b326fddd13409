"""A recipe as a kohya_ss GUI preset: keys where the GUI has them, additional_parameters for the rest."""

import re
from typing import Any

from lorakiln.base.settings import Recipe
from lorakiln.exchange.export import Exported, export, prompt_lines
from lorakiln.exchange.kohya_gui import HANDED, LYCORIS, RENAMED
from lorakiln.exchange.lycoris import splits_small_factor

KEYS = {name: key for key, name in RENAMED.items() if key != "lora_network_weights"}
# arguments that have a field in the GUI, under their own name or one of KEYS
FIELDS = {
    "pretrained_model_name_or_path", "output_name", "output_dir", "seed", "no_half_vae", "vae", "network_weights",
    "v_parameterization", "network_dim", "network_alpha", "optimizer_type", "optimizer_args", "learning_rate",
    "unet_lr", "max_grad_norm", "lr_scheduler", "lr_scheduler_num_cycles", "lr_scheduler_power", "max_train_steps",
    "max_train_epochs", "train_batch_size", "gradient_accumulation_steps", "mixed_precision", "gradient_checkpointing",
    "min_snr_gamma", "ip_noise_gamma", "debiased_estimation_loss", "min_timestep", "max_timestep", "loss_type",
    "huber_schedule", "huber_c", "save_model_as", "save_precision", "save_every_n_epochs", "save_every_n_steps",
    "save_last_n_steps", "save_last_n_epochs", "cache_latents", "cache_latents_to_disk", "sample_every_n_epochs",
    "sample_every_n_steps", "sample_sampler", "train_data_dir", "reg_data_dir", "prior_loss_weight", "resolution",
    "caption_extension", "shuffle_caption", "keep_tokens", "caption_dropout_rate", "flip_aug", "random_crop",
    "enable_bucket", "bucket_reso_steps", "bucket_no_upscale", "min_bucket_reso", "max_bucket_reso", "masked_loss",
    "max_token_length", "lr_scheduler_type", "lr_scheduler_args",
}  # fmt: skip
SWITCHES = (
    "gradient_checkpointing", "cache_latents", "cache_latents_to_disk", "shuffle_caption", "flip_aug", "random_crop",
    "enable_bucket", "bucket_no_upscale", "v_parameterization", "debiased_estimation_loss", "masked_loss",
)  # fmt: skip
# what a field shows where the recipe leaves its argument out; the GUI would keep the last value on the screen
ZEROS: dict[str, Any] = {
    "min_snr_gamma": 0, "ip_noise_gamma": 0, "min_timestep": 0, "max_timestep": 1000, "save_every_n_epochs": 0,
    "save_every_n_steps": 0, "save_last_n_steps": 0, "keep_tokens": 0, "caption_dropout_rate": 0, "max_train_steps": 0,
    "max_train_epochs": 0, "sample_every_n_epochs": 0, "sample_every_n_steps": 0, "lr_scheduler_num_cycles": 1,
    "lr_scheduler_power": 1, "optimizer_args": "", "reg_data_dir": "", "vae": "", "network_weights": "",
    "additional_parameters": "", "scale_weight_norms": 0, "network_dropout": 0, "noise_offset": 0,
    "adaptive_noise_scale": 0, "multires_noise_iterations": 0, "multires_noise_discount": 0, "lr_warmup": 0,
    "full_bf16": False, "full_fp16": False, "fp8_base": False, "max_token_length": 225, "dataset_config": "",
}  # fmt: skip


def preset(recipe: Recipe, dataset_file: str = "") -> tuple[dict[str, Any], list[str]]:
    """(the preset's table, a line for each setting that it cannot hold). `dataset_file`: where the folders will stand,
    if a train_data_dir cannot tell them."""
    out = export(recipe)
    table: dict[str, Any] = {**ZEROS, **dict.fromkeys(SWITCHES, False), "sdxl": True, "clip_skip": 1}
    extra: dict[str, Any] = {}
    _network(recipe, out, table, extra)
    _noise(out, table, extra)
    _rates(out, table, extra)
    _warmup(recipe, out, table, extra)
    for name, value in out.arguments.items():
        if name in FIELDS:
            table[KEYS.get(name, name)] = " ".join(value) if name in ("optimizer_args", "lr_scheduler_args") else value
        else:
            extra[name] = value
    table["epoch"] = recipe.train.epochs
    if "sample_prompts" in extra:
        table["sample_prompts"] = extra.pop("sample_prompts") if recipe.sample.file else prompt_lines(recipe).strip()
    if recipe.optim.clip == 0:
        extra["max_grad_norm"] = 0  # the GUI leaves out a 0
    if recipe.seed == 0:
        extra["seed"] = 0
    table["additional_parameters"], lost = words(extra)
    problems = [*out.problems, *lost]
    if out.datasets and dataset_file:
        table["dataset_config"] = dataset_file
    elif out.datasets:
        problems.append("the GUI takes one folder of '10_name' folders: write a dataset file too, with --out")
    return dict(sorted(table.items())), problems


def words(arguments: dict[str, Any]) -> tuple[str, list[str]]:
    """(arguments as additional_parameters, a line for each that it cannot hold: the GUI splits at every space)."""
    parts, lost = [], []
    for name, value in arguments.items():
        values = [] if value is True else [str(one) for one in (value if isinstance(value, list) else [value])]
        if any(re.search(r'[\s"]', one) or not one for one in values):
            lost.append(f"--{name} {' '.join(values)}: the GUI has no field for it and splits it at its spaces")
        elif isinstance(value, list):
            parts.append(" ".join([f"--{name}", *values]))
        else:
            parts.append(f"--{name}={values[0]}" if values else f"--{name}")
    return " ".join(parts), lost


def _network(recipe: Recipe, out: Exported, table: dict[str, Any], extra: dict[str, Any]) -> None:
    """LoRA_type and its fields; where the GUI has no field, the whole network_args go into additional_parameters."""
    network, adapter = dict(out.network), recipe.adapter
    lycoris = out.arguments.pop("network_module") == "lycoris.kohya"
    kind = {"locon": "LyCORIS/LoCon", "loha": "LyCORIS/LoHa", "lokr": "LyCORIS/LoKr"}.get(str(network.pop("algo", "")))
    table["LoRA_type"] = kind or ("Kohya LoCon" if adapter.conv_rank else "Standard")
    if lycoris:
        table["LyCORIS_preset"] = network.pop("preset")
    if network.pop("full_matrix", None):
        out.arguments["network_dim"] = 100000
        if adapter.conv_rank:
            network["conv_dim"] = 100000
    axis = network.pop("wd_on_output", True)
    if adapter.kind == "lokr" and "use_tucker" in network:
        network["use_cp"] = network.pop("use_tucker")
    # the GUI hands every LoKr "decompose_both=False", which LyCORIS takes for true
    forced = adapter.kind == "lokr" and not adapter.decompose_both and splits_small_factor(adapter.rank, adapter.factor)
    handed = HANDED[table["LoRA_type"]]
    for name in handed:
        table[name] = network.get(name, 0 if name in ("rank_dropout", "module_dropout") else "")
        if table[name] == "" and lycoris:
            table[name] = {"conv_dim": adapter.conv_rank or 1, "conv_alpha": adapter.conv_alpha, "factor": -1}.get(
                name, False
            )
    if axis is False or (forced and not adapter.full_matrix) or set(network) - set(handed):
        every = [f"{name}={value}" for name, value in out.network.items()]
        extra["network_args"] = every
        if adapter.full_matrix:
            extra["network_dim"] = adapter.rank
    assert table["LoRA_type"] in LYCORIS or not lycoris


def _noise(out: Exported, table: dict[str, Any], extra: dict[str, Any]) -> None:
    """The GUI takes noise_offset or multires noise; both at once need additional_parameters."""
    offset = out.arguments.pop("noise_offset", 0)
    levels, discount = (out.arguments.pop(f"multires_noise_{name}", 0) for name in ("iterations", "discount"))
    table["noise_offset_type"] = "Multires" if levels else "Original"
    if levels:
        table |= {"multires_noise_iterations": levels, "multires_noise_discount": discount}
        if not discount:
            extra["multires_noise_discount"] = 0
    if offset and levels:
        extra["noise_offset"] = offset
    else:
        table["noise_offset"] = offset


def _rates(out: Exported, table: dict[str, Any], extra: dict[str, Any]) -> None:
    """0 for one part means that it is not trained; the flags follow from that."""
    text = out.arguments.pop("text_encoder_lr", 0)
    table |= {"unet_lr": out.arguments.pop("unet_lr", 0), "text_encoder_lr": text}
    for flag in ("network_train_unet_only", "network_train_text_encoder_only"):
        out.arguments.pop(flag, None)
    if isinstance(text, list):
        table["text_encoder_lr"] = max(text)
        extra["text_encoder_lr"] = text


def _warmup(recipe: Recipe, out: Exported, table: dict[str, Any], extra: dict[str, Any]) -> None:
    """Whole percents have a field."""
    warmup = out.arguments.pop("lr_warmup_steps", 0)
    percent = 100 * recipe.optim.warmup
    if warmup and warmup < 1 and abs(percent - round(percent)) < 1e-9 and not recipe.train.steps:
        table["lr_warmup"] = round(percent)
    elif warmup:
        extra["lr_warmup_steps"] = warmup
