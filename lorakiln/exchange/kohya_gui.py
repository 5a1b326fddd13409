"""kohya_ss's GUI presets: what the GUI makes of a saved .json before sd-scripts sees it, key by key."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lorakiln.exchange import elsewhere
from lorakiln.exchange.arguments import ARGUMENTS, Unreadable, overlay, parse_command_line, read_value
from lorakiln.exchange.network import PREFIX
from lorakiln.exchange.report import Given, Key, Sheet
from lorakiln.exchange.sd_scripts import DEFAULTS, network_args_row, together, translate, with_network_args

# what a fresh GUI shows where a preset is silent
GUI_DEFAULTS = DEFAULTS | {
    "network_dim": 8, "learning_rate": 1e-4, "lr_scheduler": "cosine", "lr_warmup_steps": 0.1, "enable_bucket": True,
    "max_bucket_reso": 2048, "bucket_no_upscale": True, "cache_latents": True, "caption_extension": ".txt",
    "mixed_precision": "fp16", "save_precision": "fp16", "save_every_n_epochs": 1, "max_train_epochs": 1,
    "max_token_length": 75,
}  # fmt: skip
RENAMED = {
    "max_resolution": "resolution", "optimizer": "optimizer_type", "lora_network_weights": "network_weights",
    "sdxl_cache_text_encoder_outputs": "cache_text_encoder_outputs", "sdxl_no_half_vae": "no_half_vae",
}  # fmt: skip
# arguments of sd-scripts for which the GUI has no field: a preset's key of that name leads nowhere
_LACKING = """alpha_mask base_weights base_weights_multiplier cache_info cache_text_encoder_outputs
    cache_text_encoder_outputs_to_disk caption_extention caption_prefix caption_separator caption_suffix
    caption_tag_dropout_rate conditioning_data_dir config_file console_log_file console_log_level
    console_log_simple cpu_offload_checkpointing dataset_class dataset_repeats ddp_gradient_as_bucket_view
    ddp_static_graph ddp_timeout debug_dataset deepspeed disable_mmap_load_safetensors enable_wildcard
    face_crop_aug_range fp8_base_unet fused_backward_pass in_json initial_epoch initial_lr_from_state
    initial_step keep_tokens_separator log_prefix lowram lr_decay_steps lr_scheduler_min_lr_ratio
    lr_scheduler_timescale max_validation_steps network_args network_module network_train_text_encoder_only
    network_train_unet_only no_half_vae no_metadata optimizer_type output_config resize_interpolation resolution
    sample_at_first save_n_epoch_ratio sdpa secondary_separator skip_cache_check skip_until_initial_step
    text_encoder_batch_size token_warmup_min token_warmup_step tokenizer_cache_dir torch_compile
    use_lion_optimizer validate_every_n_epochs validate_every_n_steps validation_seed validation_split
    zero_stage zero_terminal_snr"""
LACKING = set(_LACKING.split())
# text in a number's place: the GUI reads int(text) or float(text), and takes this where that fails
INTEGERS = {
    "clip_skip": 0, "epoch": 0, "gradient_accumulation_steps": 0, "keep_tokens": 0, "lr_warmup": 0,
    "max_data_loader_n_workers": 0, "max_train_epochs": 0, "save_every_n_epochs": 0, "seed": 0, "max_train_steps": 0,
    "lr_scheduler_num_cycles": 1, "max_token_length": 75,
}  # fmt: skip
NUMBERS = {
    "adaptive_noise_scale": 0.0, "noise_offset": 0.0, "learning_rate": 0.0, "text_encoder_lr": 0.0, "unet_lr": 0.0,
    "lr_scheduler_power": 1.0,
}  # fmt: skip
LYCORIS = {
    "LyCORIS/LoCon": "locon", "LoCon": "locon", "LyCORIS/LoHa": "loha", "LyCORIS/LoKr": "lokr", "LyCORIS/iA3": "ia3",
    "LyCORIS/DyLoRA": "dylora", "LyCORIS/GLoRA": "glora", "LyCORIS/Diag-OFT": "diag-oft", "LyCORIS/BOFT": "boft",
    "LyCORIS/Native Fine-Tuning": "full",
}  # fmt: skip
MODULES = {
    "Standard": "networks.lora", "Kohya LoCon": "networks.lora", "LoRA-FA": "networks.lora_fa",
    "Kohya DyLoRA": "networks.dylora", "Flux1": "networks.lora_flux", "Flux1 OFT": "networks.oft_flux",
    "Kohya LoHa": "networks.loha", "Kohya LoKr": "networks.lokr",
}  # fmt: skip
_LORAPLUS = ("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio")
_BLOCKS = ("down_lr_weight", "mid_lr_weight", "up_lr_weight", "block_lr_zero_threshold", "block_dims", "block_alphas",
           "conv_block_dims", "conv_block_alphas", "rank_dropout", "module_dropout")  # fmt: skip
_LYCORIS = (
    "conv_dim",
    "conv_alpha",
    "rank_dropout",
    "module_dropout",
    "use_scalar",
    "rank_dropout_scale",
    "train_norm",
)
# which network arguments the GUI hands on for which type
HANDED = {
    "Standard": _BLOCKS,
    "LoRA-FA": _BLOCKS,
    "Kohya LoCon": ("conv_dim", "conv_alpha", *_BLOCKS),
    "Kohya DyLoRA": ("conv_dim", "conv_alpha", "unit", *_BLOCKS),
    "LyCORIS/LoCon": (*_LYCORIS, "bypass_mode", "dora_wd", "use_tucker"),
    "LoCon": (*_LYCORIS, "bypass_mode", "dora_wd", "use_tucker"),
    "LyCORIS/LoHa": (*_LYCORIS, "bypass_mode", "dora_wd", "use_tucker"),
    "LyCORIS/LoKr": (*_LYCORIS, "bypass_mode", "dora_wd", "factor", "use_cp", "decompose_both"),
    "LyCORIS/iA3": ("conv_dim", "conv_alpha", "train_on_input"),
    "LyCORIS/DyLoRA": ("conv_dim", "conv_alpha", "use_tucker", "unit", "rank_dropout", "module_dropout", "train_norm"),
    "LyCORIS/GLoRA": ("conv_dim", "conv_alpha", "rank_dropout", "module_dropout", "rank_dropout_scale", "train_norm"),
    "LyCORIS/Diag-OFT": (*_LYCORIS, "use_tucker", "constrain", "rescaled"),
    "LyCORIS/BOFT": (*_LYCORIS, "use_tucker", "constrain", "rescaled"),
    "LyCORIS/Native Fine-Tuning": (
        "rank_dropout", "module_dropout", "use_tucker", "use_scalar", "rank_dropout_scale", "train_norm",
    ),
    "Kohya LoHa": ("conv_dim", "conv_alpha", "use_tucker", "rank_dropout", "module_dropout"),
    "Kohya LoKr": ("conv_dim", "conv_alpha", "use_tucker", "factor", "rank_dropout", "module_dropout"),
}  # fmt: skip
# what the GUI hands LyCORIS where a preset has no such key
LYCORIS_DEFAULTS = {"conv_dim": "1", "conv_alpha": "1", "decompose_both": "False"}
NETWORK_KEYS = {key for keys in HANDED.values() for key in keys} | set(_LORAPLUS)
GONE = {
    "no_token_padding": "has no effect when a LoRA is trained",
    "stop_text_encoder_training_pct": "the GUI never handed it on",
    "conv_dims": "today's name is conv_block_dims",
    "conv_alphas": "today's name is conv_block_alphas",
    "use_wandb": "today's name is log_with",
    "model_list": "only a list on the screen",
    "save_as_bool": "a button of the GUI",
    "train_blocks": "belongs to Flux",
    "lowvram": elsewhere.SPEED,
}
FAMILIES = {"flux1_checkbox": "Flux", "sd3_checkbox": "SD 3"}
_FLUX = """ae apply_t5_attn_mask blocks_to_swap clip_l discrete_flow_shift double_blocks_to_swap enable_all_linear
    flux1_cache_text_encoder_outputs flux1_cache_text_encoder_outputs_to_disk flux_fused_backward_pass ggpo_beta
    ggpo_sigma guidance_scale img_attn_dim img_mlp_dim img_mod_dim in_dims mem_eff_save model_prediction_type single_dim
    single_blocks_to_swap single_mod_dim split_mode split_qkv t5xxl t5xxl_lr t5xxl_max_token_length timestep_sampling
    train_double_block_indices train_lora_ggpo train_single_block_indices train_t5xxl txt_attn_dim txt_mlp_dim
    txt_mod_dim"""
FLUX = set(_FLUX.split())
_SD3 = """apply_lg_attn_mask clip_g clip_g_dropout_rate clip_l_dropout_rate enable_scaled_pos_embed logit_mean logit_std
    mode_scale pos_emb_random_crop_rate save_clip save_t5xxl t5_dropout_rate t5xxl_device t5xxl_dtype training_shift
    weighting_scheme"""
SD3 = set(_SD3.split())
EXTRA = "additional_parameters"
KEYS = {*ARGUMENTS, *RENAMED, *NETWORK_KEYS, *FAMILIES, "LoRA_type", "LyCORIS_preset", EXTRA}


def preset(table: Mapping[str, Any]) -> tuple[Sheet, list[str]]:
    """A saved preset: the sheet with every key told, and the settings still to give."""
    keys = Keys(table)
    keys.plain()
    keys.network()
    keys.noise()
    keys.length()
    keys.rates()
    # the GUI drops every double quote and splits at spaces, within quotes too
    given, extra_rows = parse_command_line(str(table.get(EXTRA) or "").replace('"', "").split(), f"{EXTRA}:")
    merged, overridden = overlay(keys.given, given, "additional_parameters")
    if "network_args" in given:
        dropped = [name for name in merged if name.startswith(PREFIX)]
        overridden += [Key(merged[n].key, merged[n].value, "no-effect", "", "additional_parameters has --network_args")
                       for n in dropped if merged[n].key]  # fmt: skip
        merged = {name: one for name, one in merged.items() if name not in dropped}
    if "max_train_steps" in given and "max_train_epochs" not in given and keys.by_epoch:
        merged.pop("max_train_epochs", None)
        overridden.append(
            Key("epoch", table.get("epoch"), "no-effect", "", "additional_parameters has --max_train_steps")
        )
    sheet = Sheet(with_network_args(merged), keys.defaults)
    unique = {row.key: row for row in [*keys.rows, *overridden, *extra_rows]}
    sheet.add(unique.values())
    asked = translate(sheet)
    network_args_row(sheet)
    if EXTRA in table:
        parts = [row for row in sheet.rows.values() if row.key.startswith(f"{EXTRA}:")]
        fate, to = together(parts)
        why = "a command line; each of its parts has a line" if parts else "empty"
        sheet.add([Key(EXTRA, table[EXTRA], fate, to, why)])
    _dropped_zeros(sheet)
    return sheet, asked


def _dropped_zeros(sheet: Sheet) -> None:
    """Say it where the GUI's way of leaving out a 0 brings another value in."""
    for name in (
        "max_grad_norm",
        "prior_loss_weight",
        "multires_noise_discount",
        "bucket_reso_steps",
        "max_train_steps",
    ):
        given = sheet.given.get(name)
        if given and given.key and given.read is None and sheet.rows[given.key].fate == "mapped":
            why = f"the GUI leaves out a 0, so sd-scripts' own {DEFAULTS.get(name)} comes in"
            sheet.rows[given.key] = replace(sheet.rows[given.key], why=why)


class Keys:
    """The GUI's work: converts, renames, drops, and says so."""

    def __init__(self, table: Mapping[str, Any]):
        self.table = table
        self.given: dict[str, Given] = {}
        self.rows: list[Key] = []
        self.defaults = dict(GUI_DEFAULTS)
        self.by_epoch = False
        self.sdxl = table.get("sdxl") is True
        self.kind = str(table.get("LoRA_type", "Standard"))
        self.family = next((name for key, name in FAMILIES.items() if table.get(key)), "")

    def tell(self, key: str, fate: Any, why: str) -> None:
        if key in self.table:
            self.rows.append(Key(key, self.table[key], fate, "", why))

    def number(self, key: str) -> Any:
        """A key as the GUI's conversion leaves it; None where the preset has no such key."""
        value = self.table.get(key)
        if value is None:
            return None
        try:
            number = int(value) if key in INTEGERS else float(value)
            return number if math.isfinite(number) else INTEGERS.get(key, NUMBERS.get(key, 0))
        except (ValueError, TypeError, OverflowError):
            return INTEGERS.get(key, NUMBERS.get(key, 0))

    def give(self, name: str, key: str, value: Any) -> None:
        """Hand an argument on. The GUI leaves out what is empty, false or 0, so that sd-scripts' default comes in."""
        try:
            read = read_value(name, value) if value else None
        except Unreadable as error:
            self.tell(key, "invalid", str(error))
            return
        self.given[name] = Given(key, self.table[key], read)
        if read is None and name not in ("keep_tokens",):
            self.defaults[name] = DEFAULTS.get(name)

    def plain(self) -> None:
        """Keys that are handed on one by one, and those that lead nowhere."""
        later = {"LoRA_type", "LyCORIS_preset", EXTRA, "epoch", "max_train_epochs", "max_train_steps", "lr_warmup",
                 "lr_warmup_steps", "learning_rate", "unet_lr", "text_encoder_lr", "noise_offset", "noise_offset_type",
                 "adaptive_noise_scale", "multires_noise_iterations", "multires_noise_discount"}  # fmt: skip
        later |= NETWORK_KEYS
        for key in self.table:
            if key in later:
                continue
            if key in ("optimizer_args", "lr_scheduler_args"):
                self.give(key, key, str(self.table[key] or "").replace('"', "").split())
            elif key == "sdxl" or key in FAMILIES:
                self._family(key)
            elif key in FLUX or key in SD3 or key.startswith("sd3_"):
                family = "Flux" if key in FLUX else "SD 3"
                needed = self.family == family and self.table[key]
                self.tell(key, "unsupported" if needed else "no-effect", f"belongs to {family}")
            elif key in LACKING:
                self.tell(key, "no-effect", "the GUI has no such field and passes over it")
            elif key in GONE:
                self.tell(key, "no-effect", GONE[key])
            elif key == "use_8bit_adam":
                self._eight_bits()
            elif key == "network_weights" and self.table.get("lora_network_weights") is not None:
                self.tell(key, "no-effect", "lora_network_weights, its old name, takes its place")
            elif key in RENAMED or key in ARGUMENTS:
                self._plain(key, RENAMED.get(key, key))
            elif key in elsewhere.REASONS:
                self.given[key] = Given(key, self.table[key], self.table[key])
            else:
                self.tell(key, "no-effect", "the GUI knows no such key and passes over it")

    def _eight_bits(self) -> None:
        """The old switch names the optimizer in presets that do not."""
        value = self.table["use_8bit_adam"]
        if "optimizer" in self.table:
            self.tell("use_8bit_adam", "no-effect", "'optimizer' decides")
        else:
            self.given["optimizer_type"] = Given("use_8bit_adam", value, "AdamW8bit" if value else "AdamW")

    def _plain(self, key: str, name: str) -> None:
        value = self.number(key) if key in INTEGERS or key in NUMBERS else self.table[key]
        if key == "xformers" or key == "mem_eff_attn":
            self.given[name] = Given(key, self.table[key], True)
        elif key == "clip_skip" and not self.sdxl and value not in (0, 1):
            self.tell(key, "unsupported", "on SD 1.5 it picks the text encoder's layer; Kiln trains SDXL")
        elif (name == "no_half_vae" and not self.sdxl) or (name == "cache_text_encoder_outputs" and not self.sdxl):
            self.tell(key, "no-effect", "read for SDXL only")
        else:
            self.give(name, key, value)

    def _family(self, key: str) -> None:
        if key == "sdxl" and self.sdxl:
            self.rows.append(Key(key, True, "mapped", "base", "Kiln trains SDXL"))
        elif key in FAMILIES and not self.table[key]:
            self.tell(key, "no-effect", "off")
        else:
            what = FAMILIES.get(key) or self.family or "SD 1.5 or 2"
            self.tell(key, "unsupported", f"the preset is for {what}; the recipe is for SDXL")

    def network(self) -> None:
        """LoRA_type becomes sd-scripts' module and LyCORIS's algo; keys that the type does not hand on die here."""
        if "LoRA_type" in self.table:
            module = "lycoris.kohya" if self.kind in LYCORIS else MODULES.get(self.kind, self.kind)
            self.given["network_module"] = Given("LoRA_type", self.kind, module)
        lycoris = self.kind in LYCORIS
        if lycoris:
            self.given[PREFIX + "algo"] = Given("LoRA_type", self.kind, LYCORIS[self.kind])
        if "LyCORIS_preset" in self.table:
            if lycoris:
                self.given[PREFIX + "preset"] = Given("LyCORIS_preset", *[self.table["LyCORIS_preset"]] * 2)
            else:
                self.tell("LyCORIS_preset", "no-effect", f"{self.kind} does not read it")
        handed = (*HANDED.get(self.kind, ()), *_LORAPLUS)
        for key in [key for key in self.table if key in NETWORK_KEYS]:
            value = self.table[key]
            if key not in handed:
                self.tell(key, "no-effect", f"the GUI does not hand it on for {self.kind}")
            elif key in _LORAPLUS or not (lycoris or key in ("conv_dim", "conv_alpha")):
                self.given[PREFIX + key] = Given(key, value, str(value) if value else None)
            else:
                name = "block_size" if key == "unit" else key
                self.given[PREFIX + name] = Given(key, value, str(value))
        if lycoris:
            self.defaults |= {PREFIX + key: value for key, value in LYCORIS_DEFAULTS.items()
                              if key in handed and key not in self.table}  # fmt: skip

    def noise(self) -> None:
        """noise_offset or multi-resolution noise: the type on the screen says which of them is handed on."""
        kind = str(self.table.get("noise_offset_type") or "Original")
        offset, multires = kind == "Original", kind == "Multires"
        if "noise_offset_type" in self.table:
            to = "loss.noise_offset" if offset else "loss.multires_levels" if multires else ""
            why = f"'{kind}': {'noise_offset' if offset else 'multires noise'} is the one used"
            row = Key("noise_offset_type", self.table["noise_offset_type"], "mapped" if to else "invalid", to,
                      why if to else "must be Original or Multires")  # fmt: skip
            self.rows.append(row)
        for key, wanted in (
            ("noise_offset", offset),
            ("adaptive_noise_scale", offset),
            ("multires_noise_iterations", multires),
            ("multires_noise_discount", multires),
        ):
            if key not in self.table:
                continue
            if wanted:
                self.give(key, key, self.number(key) if key in NUMBERS else self.table[key])
            else:
                self.tell(key, "no-effect", f"noise_offset_type is '{kind}'")

    def length(self) -> None:
        """max_train_epochs decides, then max_train_steps, then epoch."""
        epochs, steps = self.number("max_train_epochs") or 0, self.number("max_train_steps") or 0
        epoch = self.number("epoch")
        epoch = 1 if epoch is None else epoch
        for key, value in (("max_train_epochs", epochs), ("max_train_steps", steps)):
            if key in self.table:
                self.given[key] = Given(key, self.table[key], value or None)
        self.defaults["max_train_epochs"] = None
        if epochs:
            self.tell("epoch", "no-effect", f"max_train_epochs = {epochs} decides")
        elif steps:
            self.tell("epoch", "no-effect", f"max_train_steps = {steps} decides")
        elif self.table.get("dataset_config"):
            self.tell("epoch", "no-effect", "with dataset_config the GUI counts no steps: sd-scripts' own 1600 come in")
        else:
            self.by_epoch = True
            for key in ("max_train_epochs", "max_train_steps"):
                self.tell(key, "no-effect", "empty: 'epoch' decides")
                self.given.pop(key, None)
            self.given["max_train_epochs"] = Given(
                "epoch" if "epoch" in self.table else "", self.table.get("epoch"), max(1, epoch)
            )
        self._warmup()

    def _warmup(self) -> None:
        """lr_warmup_steps, today's field, beats the percentage; that is a share of the run."""
        percent, steps = self.number("lr_warmup"), self.number("lr_warmup_steps") or 0
        share = (10 if percent is None else percent) / 100
        self.defaults["lr_warmup_steps"] = share or 0
        if steps > 0:
            self.tell("lr_warmup", "no-effect", "lr_warmup_steps takes its place")
            self.given["lr_warmup_steps"] = Given("lr_warmup_steps", self.table["lr_warmup_steps"], int(steps))
            return
        if "lr_warmup" in self.table:
            self.given["lr_warmup_steps"] = Given("lr_warmup", self.table["lr_warmup"], share or 0)
        self.tell("lr_warmup_steps", "no-effect", "0: lr_warmup decides")

    def rates(self) -> None:
        """0 means empty: both 0, and both parts train at learning_rate; one of them 0, and that part is not trained."""
        shared, unet, text = (self.number(key) for key in ("learning_rate", "unet_lr", "text_encoder_lr"))
        shared, unet, text = (1e-4 if rate is None else rate for rate in (shared, unet, text))
        for key, rate in (("learning_rate", shared), ("unet_lr", unet), ("text_encoder_lr", text)):
            self.given[key] = Given(key if key in self.table else "", self.table.get(key), rate or None)
        self.defaults["learning_rate"] = shared
        if unet and not text:
            self.given["network_train_unet_only"] = Given("", None, True)
        elif text and not unet:
            self.given["network_train_text_encoder_only"] = Given("", None, True)
