"""The arguments of sd-scripts' SDXL LoRA training: their kinds, and how a command line or a text value is read."""

import ast
import math
import re
from collections.abc import Mapping
from typing import Any, Literal

from lorakiln.exchange.report import Given, Key

Kind = Literal["flag", "int", "float", "text", "words", "numbers"]

_NAMES: dict[Kind, str] = {
    "flag": """alpha_mask async_upload bucket_no_upscale cache_info cache_latents cache_latents_to_disk
        cache_text_encoder_outputs cache_text_encoder_outputs_to_disk color_aug console_log_simple
        cpu_offload_checkpointing ddp_gradient_as_bucket_view ddp_static_graph debiased_estimation_loss
        debug_dataset deepspeed dim_from_weights disable_mmap_load_safetensors enable_bucket enable_wildcard
        flip_aug fp16_master_weights_and_gradients fp8_base fp8_base_unet full_bf16 full_fp16
        fused_backward_pass gradient_checkpointing highvram initial_lr_from_state
        ip_noise_gamma_random_strength log_config lowram masked_loss mem_eff_attn
        network_train_text_encoder_only network_train_unet_only no_half_vae no_metadata
        noise_offset_random_strength output_config persistent_data_loader_workers random_crop
        resume_from_huggingface sample_at_first save_state save_state_on_train_end save_state_to_huggingface
        scale_v_pred_loss_like_noise_pred sdpa shuffle_caption skip_cache_check skip_until_initial_step
        torch_compile use_8bit_adam use_lion_optimizer v2 v_parameterization weighted_captions xformers
        zero3_init_flag zero3_save_16bit_model zero_terminal_snr""",
    "int": """bucket_reso_steps caption_dropout_every_n_epochs clip_skip dataset_repeats ddp_timeout
        gradient_accumulation_steps initial_epoch initial_step keep_tokens lr_scheduler_num_cycles
        lr_scheduler_timescale max_bucket_reso max_data_loader_n_workers max_timestep max_token_length
        max_train_epochs max_train_steps max_validation_steps min_bucket_reso min_timestep
        multires_noise_iterations network_dim sample_every_n_epochs sample_every_n_steps
        save_every_n_epochs save_every_n_steps save_last_n_epochs save_last_n_epochs_state save_last_n_steps
        save_last_n_steps_state save_n_epoch_ratio seed text_encoder_batch_size token_warmup_min train_batch_size
        vae_batch_size validate_every_n_epochs validate_every_n_steps validation_seed zero_stage""",
    "float": """adaptive_noise_scale caption_dropout_rate caption_tag_dropout_rate huber_c huber_scale ip_noise_gamma
        learning_rate lr_decay_steps lr_scheduler_min_lr_ratio lr_scheduler_power lr_warmup_steps max_grad_norm
        min_snr_gamma multires_noise_discount network_alpha network_dropout noise_offset prior_loss_weight
        scale_weight_norms token_warmup_step unet_lr v_pred_like_loss validation_split""",
    "numbers": "base_weights_multiplier text_encoder_lr",
    "words": "base_weights lr_scheduler_args network_args optimizer_args",
    "text": """caption_extension caption_extention caption_prefix caption_separator caption_suffix
        conditioning_data_dir config_file console_log_file console_log_level dataset_class dataset_config
        dynamo_backend face_crop_aug_range huber_schedule huggingface_path_in_repo huggingface_repo_id
        huggingface_repo_type huggingface_repo_visibility huggingface_token in_json keep_tokens_separator
        log_prefix log_tracker_config log_tracker_name log_with logging_dir loss_type lr_scheduler
        lr_scheduler_type metadata_author metadata_description metadata_license metadata_tags metadata_title
        mixed_precision network_module network_weights offload_optimizer_device offload_optimizer_nvme_path
        offload_param_device offload_param_nvme_path optimizer_type output_dir output_name
        pretrained_model_name_or_path reg_data_dir resize_interpolation resolution resume sample_prompts
        sample_sampler save_model_as save_precision secondary_separator tokenizer_cache_dir train_data_dir
        training_comment vae wandb_api_key wandb_run_name""",
}
ARGUMENTS: dict[str, Kind] = {name: kind for kind, names in _NAMES.items() for name in names.split()}
# what only a dataset_config tells
BESIDE_FOLDERS: dict[str, Kind] = {"num_repeats": "int", "image_dir": "text"}
SHARES = ("lr_warmup_steps", "lr_decay_steps")  # a fraction, or "5%", is a share of the run


class Unreadable(ValueError):
    """A value that the other tool's parser refuses; the message says what it must be."""


def read_value(name: str, value: Any) -> Any:
    """A value for argument `name` as a number, truth or text; numbers may come as text, as they do in real files.

    None and "" give None. Raises Unreadable where it cannot be read as the argument's kind.
    """
    kind = ARGUMENTS.get(name) or BESIDE_FOLDERS.get(name)
    if value is None or value == "" or kind is None:
        return None
    if kind == "flag":
        return _truth(value)
    if kind in ("words", "numbers"):
        items = (
            list(value) if isinstance(value, list | tuple) else str(value).split(",") if kind == "numbers" else [value]
        )
        return [read_number(item, float) for item in items] if kind == "numbers" else [str(item) for item in items]
    if kind == "text":
        return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    if name in SHARES and isinstance(value, str) and value.endswith("%"):
        return read_number(value[:-1], float) / 100
    return read_number(value, int if kind == "int" else float)


def read_number(value: Any, kind: type) -> Any:
    """An int or float from a number or its text; Unreadable for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Unreadable("must be a number")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise Unreadable("must be a number") from None
    if not math.isfinite(number):
        raise Unreadable("must be a finite number")
    if kind is int and number != int(number):
        raise Unreadable("must be a whole number")
    # a whole number stays one: `lr_warmup_steps = 1` is a step, 1.0 would be the whole run
    if isinstance(value, int) or (isinstance(value, str) and re.fullmatch(r"[-+]?\d+", value.strip())):
        return int(value)
    return int(number) if kind is int else number


def _truth(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value or None
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true" or None
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value) or None
    raise Unreadable("must be true or false")


def parse_pairs(words: list[str], *, tool: str = "sd-scripts") -> tuple[dict[str, Any], list[str]]:
    """({name: value}, words that cannot be read) of `k=v` words; values are Python literals, "0.9,0.99" a list."""
    pairs: dict[str, Any] = {}
    wrong = []
    for word in words:
        name, found, text = word.partition("=")
        try:
            if not found or "=" in text:
                raise ValueError(f"{tool} splits at every '='")
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            wrong.append(word)
            continue
        if _writable(value):
            pairs[name.strip()] = list(value) if isinstance(value, tuple) else value
        else:
            wrong.append(word)
    return pairs, wrong


def _writable(value: Any) -> bool:
    """Whether a recipe can hold the value: numbers, text, truth, nothing, and lists of them."""
    if isinstance(value, list | tuple):
        return all(map(_writable, value))
    return value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def parse_command_line(words: list[str], prefix: str) -> tuple[dict[str, Given], list[Key]]:
    """The arguments in the words of a command line such as `--max_grad_norm=0 --network_train_unet_only`, and rows for
    the rest.

    A row's key is `prefix--name`. A name may be shortened as argparse allows. Where one is given twice the last counts.
    """
    given: dict[str, Given] = {}
    rows: list[Key] = []
    at = 0
    while at < len(words):
        flag, joined, value = words[at].partition("=")
        at += 1
        follow = at
        while follow < len(words) and not words[follow].startswith("--"):
            follow += 1
        values, at = ([value] if joined else []) + words[at:follow], follow
        if not flag.startswith("--"):
            text = " ".join([flag, *values])
            rows.append(Key(f"{prefix}{flag}", text, "invalid", "", "stands without a --name"))
            continue
        _take(flag, values, prefix, given, rows)
    return given, rows


def _take(flag: str, values: list[str], prefix: str, given: dict[str, Given], rows: list[Key]) -> None:
    name = full_name(flag.removeprefix("--"))
    key = f"{prefix}{flag}"
    if name is None:
        rows.append(Key(key, " ".join(values), "invalid", "", "sd-scripts has no such argument and stops"))
        return
    kind = ARGUMENTS[name]
    shown: Any = True if kind == "flag" and not values else values[0] if len(values) == 1 else values
    if (kind == "flag" and values) or (kind in ("int", "float", "text") and len(values) != 1):
        wanted = "no value" if kind == "flag" else "one value"
        rows.append(Key(key, shown, "invalid", "", f"takes {wanted}; sd-scripts stops"))
        return
    if name in given and given[name].key != key:
        rows.append(Key(given[name].key, given[name].value, "no-effect", "", f"{flag} comes after it"))
    try:
        if isinstance(shown, str):
            _strict(name, shown)
        given[name] = Given(key, shown, read_value(name, values if kind in ("words", "numbers") else shown))
    except Unreadable as error:
        rows.append(Key(key, shown, "invalid", "", f"{error}; sd-scripts stops"))


def _strict(name: str, text: str) -> None:
    """Unreadable for what a file may say but the command line may not: 1.0 for a whole number."""
    above = name in SHARES and re.fullmatch(r"\d*\.\d*", text) is not None and text != "." and float(text) >= 1
    if (ARGUMENTS[name] == "int" and not re.fullmatch(r"\s*[-+]?\d+\s*", text)) or above:
        raise Unreadable("must be a whole number")


def full_name(name: str) -> str | None:
    """The argument meant by a name, which argparse lets one shorten; None for an unknown or ambiguous one."""
    if name in ARGUMENTS:
        return name
    close = [known for known in ARGUMENTS if known.startswith(name)]
    return close[0] if len(close) == 1 else None


def overlay(base: Mapping[str, Given], top: Mapping[str, Given], whose: str) -> tuple[dict[str, Given], list[Key]]:
    """`base` with `top` laid over it, and a no-effect row for each key that is overridden. `whose`: who overrides."""
    rows = [
        Key(base[name].key, base[name].value, "no-effect", "", f"{whose} has {top[name].key.rpartition(':')[2]}")
        for name in top
        if name in base and base[name].key
    ]
    return {**base, **top}, rows
