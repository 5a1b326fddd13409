"""Arguments of sd-scripts and keys of kohya's GUI that no setting of Kiln stands for, each with the reason."""

from collections.abc import Iterable

from lorakiln.exchange.report import Fate, Sheet

SPEED = "moves memory or speed, never the result"
ATTENTION = "how attention is computed; Kiln takes PyTorch's own"
LAUNCH = "start several processes with torchrun instead"
HUB = "Kiln uploads nothing"
TEXT = "Kiln writes its own header"
LOG = "Kiln writes events.jsonl and TensorBoard files into the run's folder"

# argument -> fate and reason where it has a value; without one it is off and has no effect
REASONS: dict[str, tuple[Fate, str]] = {
    **dict.fromkeys(
        ["max_data_loader_n_workers", "persistent_data_loader_workers", "vae_batch_size", "lowram", "highvram",
         "num_cpu_threads_per_process", "disable_mmap_load_safetensors", "text_encoder_batch_size", "cache_info",
         "fused_backward_pass", "skip_cache_check", "lowvram", "dynamo_use_dynamic", "dynamo_use_fullgraph",
         "dynamo_mode", "dynamo_backend", "torch_compile", "cpu_offload_checkpointing", "tokenizer_cache_dir",
         "ddp_timeout", "ddp_gradient_as_bucket_view", "ddp_static_graph"],
        ("no-effect", SPEED),
    ),
    **dict.fromkeys(["xformers", "sdpa", "mem_eff_attn"], ("no-effect", ATTENTION)),
    **dict.fromkeys(
        ["multi_gpu", "num_processes", "num_machines", "gpu_ids", "main_process_port", "deepspeed",
         "extra_accelerate_launch_args", "zero_stage", "zero3_init_flag", "zero3_save_16bit_model",
         "fp16_master_weights_and_gradients", "offload_optimizer_device", "offload_optimizer_nvme_path",
         "offload_param_device", "offload_param_nvme_path"],
        ("unsupported", LAUNCH),
    ),
    **dict.fromkeys(
        ["async_upload", "huggingface_token", "huggingface_repo_id", "huggingface_repo_type",
         "save_state_to_huggingface", "huggingface_path_in_repo", "huggingface_repo_visibility",
         "resume_from_huggingface"],
        ("unsupported", HUB),
    ),
    **dict.fromkeys(
        ["metadata_author", "metadata_description", "metadata_license", "metadata_tags", "metadata_title",
         "training_comment", "no_metadata"],
        ("unsupported", TEXT),
    ),
    **dict.fromkeys(
        ["logging_dir", "log_with", "log_prefix", "log_tracker_name", "log_tracker_config", "wandb_run_name",
         "log_config", "wandb_api_key", "console_log_file", "console_log_level", "console_log_simple"],
        ("unsupported", LOG),
    ),
    "validation_seed": ("unsupported", "which pictures are held out follows from 'seed' and their contents"),
    "max_validation_steps": ("unsupported", "Kiln measures every held-out picture"),
    "clip_skip": ("no-effect", "SDXL training never reads it: the layer before the last is always used"),
    "scale_weight_norms": ("unsupported", "Kiln does not limit the size of weights; weight_decay shrinks them"),
    "v_pred_like_loss": ("unsupported", "Kiln has no such loss"),
    "noise_offset_random_strength": ("unsupported", "Kiln's noise offset has one strength"),
    "ip_noise_gamma_random_strength": ("unsupported", "Kiln's input perturbation has one strength"),
    "fp8_base": ("unsupported", "Kiln keeps the base in bf16 or fp16; train.checkpointing saves more memory"),
    "fp8_base_unet": ("unsupported", "Kiln keeps the base in bf16 or fp16; train.checkpointing saves more memory"),
    "resume": ("unsupported", "another tool's saved state cannot be continued; its LoRA can: init = ..."),
    "save_n_epoch_ratio": ("unsupported", "say how often: save.epochs"),
    "save_last_n_steps_state": ("no-effect", "about saved states; Kiln keeps the last one"),
    "save_last_n_epochs_state": ("no-effect", "about saved states; Kiln keeps the last one"),
    "v2": ("unsupported", "SD 2 models cannot be trained"),
    "base_weights": ("unsupported", "merge that LoRA into the base first"),
    "base_weights_multiplier": ("unsupported", "merge that LoRA into the base first"),
    "dataset_class": ("unsupported", "Kiln reads folders"),
    "in_json": ("unsupported", "write the captions into files beside the pictures"),
    "prior_loss_weight": ("no-effect", "there are no regularisation pictures"),
    "dataset_repeats": ("no-effect", "read together with in_json only"),
    "debug_dataset": ("unsupported", "would show pictures instead of training"),
    "initial_epoch": ("unsupported", "Kiln's --resume knows where it was"),
    "initial_step": ("unsupported", "Kiln's --resume knows where it was"),
    "skip_until_initial_step": ("unsupported", "Kiln's --resume knows where it was"),
    "initial_lr_from_state": ("unsupported", "Kiln's --resume knows where it was"),
    "output_config": ("unsupported", "would write the configuration instead of training"),
    "config_file": ("unsupported", "import that file by itself"),
    "dataset_config": ("unsupported", "import that file by itself, and take over its [[dataset]] tables"),
    "stop_text_encoder_training": ("no-effect", "never reached the training of a LoRA"),
}  # fmt: skip
# values that mean "as if it were not there"
NEUTRAL = {
    "num_processes": 1, "num_machines": 1, "dynamo_backend": "no", "dynamo_mode": "default", "clip_skip": None,
    "huggingface_repo_visibility": "private",
}  # fmt: skip


def rest(sheet: Sheet, only: Iterable[str] | None = None) -> None:
    """Rows for every argument (of those in `only`, if given) that has none yet, and has a reason here."""
    for name in list(sheet.given if only is None else only):
        if sheet.told(name) or name not in REASONS:
            continue
        fate, why = REASONS[name]
        value = sheet.given[name].read
        off = value is None or value == "" or not value or (name in NEUTRAL and value == NEUTRAL[name])
        if off and why not in (SPEED, ATTENTION) and name != "clip_skip":
            sheet.no_effect(name, "off" if isinstance(sheet.given[name].value, bool) else "empty or 0: off")
        else:
            sheet.row(name, fate, "", why)
