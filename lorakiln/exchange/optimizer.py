"""How the weights move: sd-scripts' optimizer, learning rates and schedule as the recipe's [optim]."""

from typing import Any

from lorakiln.exchange.arguments import parse_pairs
from lorakiln.exchange.report import Sheet

# their names in lower case -> ours; a dotted path goes by its last word
NAMES = {
    "adamw": "adamw", "adamw8bit": "adamw8bit", "pagedadamw8bit": "adamw8bit", "pagedadamw": "adamw",
    "pagedadamw32bit": "adamw", "lion": "lion", "lion8bit": "lion", "pagedlion8bit": "lion",
    "adafactor": "adafactor", "prodigy": "prodigy", "came": "came",
}  # fmt: skip
NOTES = {
    "pagedadamw8bit": "paging moves memory, never the result",
    "pagedadamw": "paging moves memory, never the result",
    "pagedadamw32bit": "paging moves memory, never the result",
    "lion8bit": "Kiln's Lion keeps its state in 32 bits",
    "pagedlion8bit": "Kiln's Lion keeps its state in 32 bits",
}
OPTIONS = {
    "adamw": ("betas", "eps", "weight_decay"),
    "adamw8bit": ("betas", "eps", "weight_decay"),
    "lion": ("betas", "weight_decay"),
    "came": ("betas", "eps1", "eps2", "clip_threshold", "weight_decay"),
    "adafactor": (
        "eps1", "eps2", "clip_threshold", "decay_rate", "beta1", "weight_decay", "scale_parameter", "relative_step",
        "warmup_init",
    ),
    "prodigy": (
        "betas", "beta3", "eps", "weight_decay", "decouple", "use_bias_correction", "safeguard_warmup", "d0", "d_coef",
        "growth_rate", "slice_p",
    ),
}  # fmt: skip
# options that change memory, speed or printing there, and what they are
IDLE = {
    "foreach": "speed only", "fused": "speed only", "capturable": "speed only", "fsdp_in_use": "for sharded runs only",
    "log_every": "printing only", "min_8bit_size": "memory only", "is_paged": "memory only",
    "optim_bits": "memory only", "block_wise": "memory only", "percentile_clipping": "only with block_wise off",
}  # fmt: skip
SCHEDULES = {
    "constant": "constant", "constant_with_warmup": "constant", "linear": "linear", "cosine": "cosine",
    "cosine_with_restarts": "cosine_restarts", "polynomial": "polynomial", "cosine_with_min_lr": "cosine",
    "warmup_stable_decay": "wsd",
}  # fmt: skip
LIKE_PRODIGY = "Kiln has no D-Adaptation; Prodigy, which grew out of it, stands in: compare before you rely on it"


def optimizer(sheet: Sheet) -> None:
    """Fill [optim] and the rows of every argument about it."""
    _name(sheet)
    _options(sheet)
    _rates(sheet)
    _schedule(sheet)
    clip = sheet.value("max_grad_norm")
    sheet.set("optim.clip", float(clip))
    sheet.mapped("max_grad_norm", "optim.clip", float(clip))


def _name(sheet: Sheet) -> None:
    text = str(sheet.value("optimizer_type") or "AdamW")
    word = text.rpartition(".")[2].lower()
    if word in NAMES and not (text.startswith("torch.") and word != "adamw"):
        sheet.set("optim.name", NAMES[word])
        sheet.mapped("optimizer_type", "optim.name", NAMES[word], NOTES.get(word, ""))
    elif word.startswith(("dadapt", "dadaptation")):
        sheet.set("optim.name", "prodigy")
        sheet.unsupported("optimizer_type", LIKE_PRODIGY)
    elif word.endswith("schedulefree"):
        sheet.unsupported("optimizer_type", "Kiln has no schedule-free optimizer; the recipe takes adamw instead")
        sheet.set("optim.name", "adamw")
    elif word.startswith("sgdnesterov"):
        sheet.set("optim.name", "torch.optim.SGD")
        sheet.set("optim.options", {"momentum": 0.9, "nesterov": True})
        sheet.mapped("optimizer_type", "optim.name", "torch.optim.SGD", "with momentum 0.9 and nesterov")
    else:
        path = text if "." in text else f"torch.optim.{text}"
        sheet.set("optim.name", path)
        sheet.mapped("optimizer_type", "optim.name", path, f"needs the package {path.split('.')[0]} installed")


def _options(sheet: Sheet) -> None:
    """The optimizer's own options, with the defaults that differ from Kiln's written out."""
    name, words = sheet.setting("optim.name"), list(sheet.value("optimizer_args") or [])
    pairs, wrong = parse_pairs(words)
    if name in ("came", "adafactor") and isinstance(pairs.get("eps"), list) and len(pairs["eps"]) == 2:
        pairs["eps1"], pairs["eps2"] = pairs.pop("eps")
    options = dict(sheet.setting("optim.options") or {})
    if name == "adafactor":
        relative = bool(pairs.get("relative_step", True) or pairs.get("warmup_init", False))
        options |= {"scale_parameter": True, "relative_step": relative}
        if "relative_step" in pairs:
            pairs["relative_step"] = relative
    known = OPTIONS.get(name)
    taken = {key: value for key, value in pairs.items() if known is None or key in known}
    options |= taken
    sheet.set("optim.options", {k: _plain(v) for k, v in options.items() if v is not None})
    for key in pairs:
        _one_option(sheet, key, taken)
    if "optimizer_args" not in sheet.given:
        return
    idle = [f"{key}: {IDLE[key]}" for key in pairs if key not in taken and key in IDLE]
    bad = [*wrong, *(key for key in pairs if key not in taken and key not in IDLE)]
    _options_row(sheet, words, taken, idle, bad)


def _one_option(sheet: Sheet, key: str, taken: dict[str, Any]) -> None:
    """The row of an option that is a key of its own in the source (a table instead of `k=v` words)."""
    name = f"optimizer_args.{key}"
    if key in taken:
        sheet.row(name, "mapped", f"optim.options.{key}")
    elif key in IDLE:
        sheet.no_effect(name, IDLE[key])
    else:
        sheet.invalid(name, f"{sheet.value('optimizer_type')} has no such option and stops")


def _options_row(sheet: Sheet, words: list[str], taken: dict[str, Any], idle: list[str], bad: list[str]) -> None:
    why = "; ".join([*idle, *([f"'{', '.join(bad)}' would stop {sheet.value('optimizer_type')}"] if bad else [])])
    if not words:
        sheet.no_effect("optimizer_args", "empty")
    elif bad and not taken:
        sheet.invalid("optimizer_args", why)
    else:
        to = ", ".join(f"optim.options.{key}" for key in taken) or "optim.options"
        sheet.row("optimizer_args", "mapped", to, why)


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _rates(sheet: Sheet) -> None:
    """Each part's learning rate as sd-scripts gives them out: its own, else learning_rate; 0 is not trained."""
    unet_only, text_only = sheet.value("network_train_unet_only"), sheet.value("network_train_text_encoder_only")
    if sheet.setting("optim.text_lr") == 0.0 and not sheet.has("network_train_unet_only"):
        unet_only = True  # the network's own preset leaves the text encoders alone
    shared, unet, text = sheet.value("learning_rate"), sheet.value("unet_lr"), _text_rates(sheet)
    unet_rate = 0.0 if text_only else shared if unet is None else unet
    text_rates = [0.0, 0.0] if unet_only else [shared if rate is None else rate for rate in text]
    if sheet.setting("optim.options.relative_step"):
        unet_rate, text_rates = _own_rates(sheet, unet_rate, text_rates)
        return
    _own_row(sheet, "unet_lr", "optim.lr", unet, unet_rate, text_only)
    _own_row(sheet, "text_encoder_lr", "optim.text_lr", text[0], text_rates[0], unet_only)
    fallback = [to for to, own, off in [("optim.lr", unet, text_only), ("optim.text_lr", text[0], unet_only)]
                if own is None and not off]  # fmt: skip
    if fallback:
        sheet.mapped("learning_rate", ", ".join(fallback), shared)
    else:
        sheet.no_effect("learning_rate", "every part that is trained has a rate of its own")
    if sheet.setting("optim.name") == "prodigy":
        text_rates = _one_rate(sheet, unet_rate, text_rates)
    _set_rates(sheet, unet_rate, text_rates)
    for name, to in (("network_train_unet_only", "optim.text_lr"), ("network_train_text_encoder_only", "optim.lr")):
        if sheet.has(name):
            sheet.mapped(name, to, 0.0)
        else:
            sheet.no_effect(name, "off")


def _set_rates(sheet: Sheet, unet: float, text: list[float]) -> None:
    sheet.set("optim.lr", float(unet))
    sheet.set("optim.text_lr", float(text[0]))
    if text[1] != text[0]:
        sheet.mapped("text_encoder_lr", "optim.text2_lr", float(text[1]))


def _text_rates(sheet: Sheet) -> list[float | None]:
    """(first, second) text encoder's rate; sd-scripts takes one number for both, or two."""
    value = sheet.value("text_encoder_lr")
    rates = list(value) if isinstance(value, list) else [value]
    return [rates[0], rates[1] if len(rates) > 1 else rates[0]] if rates else [None, None]


def _own_row(sheet: Sheet, name: str, to: str, own: float | None, rate: float, off: Any) -> None:
    """The row of one part's own learning rate."""
    if off and own:
        sheet.no_effect(name, "this part is not trained")
    elif off:
        sheet.mapped(name, to, 0.0, "0 while the other part has a rate: this part is not trained")
    elif own is None:
        sheet.mapped(name, to, float(rate), "0 for both parts means that both train at learning_rate")
    else:
        sheet.mapped(name, to, float(rate))


def _own_rates(sheet: Sheet, unet: float, text: list[float]) -> tuple[float, list[float]]:
    """Adafactor with relative_step finds its own rate: the given ones only say which parts are trained."""
    _set_rates(sheet, 1.0 if unet else 0.0, [1.0 if rate else 0.0 for rate in text])
    for name in ("learning_rate", "unet_lr", "text_encoder_lr"):
        sheet.no_effect(name, "Adafactor throws it away unless relative_step=False is among its arguments")
    for name, to in (("network_train_unet_only", "optim.text_lr"), ("network_train_text_encoder_only", "optim.lr")):
        sheet.mapped(name, to, 0.0) if sheet.has(name) else sheet.no_effect(name, "off")
    return unet, text


def _one_rate(sheet: Sheet, unet: float, text: list[float]) -> list[float]:
    """Prodigy has one step size for all parts; its package stops at a second rate."""
    if unet and any(rate not in (0.0, unet) for rate in text):
        sheet.rows.pop(sheet.given["text_encoder_lr"].key, None) if "text_encoder_lr" in sheet.given else None
        sheet.invalid("text_encoder_lr", "Prodigy stops unless all parts have one rate; the UNet's is taken for all")
        return [unet if rate else 0.0 for rate in text]
    return text


def _schedule(sheet: Sheet) -> None:
    name, warmup = str(sheet.value("lr_scheduler") or "constant"), sheet.value("lr_warmup_steps") or 0
    other = sheet.value("lr_scheduler_type")
    if sheet.setting("optim.options.relative_step"):
        sheet.set("optim.schedule", "constant")
        sheet.mapped("lr_scheduler", "optim.schedule", "constant") if name == "adafactor" else sheet.no_effect(
            "lr_scheduler", "Adafactor with relative_step has its own"
        )
        _leave(sheet, "Adafactor with relative_step has its own schedule", warmup)
    elif other:
        _other_schedule(sheet, str(other), warmup)
    elif name not in SCHEDULES:
        sheet.set("optim.schedule", "constant")
        stops = name == "adafactor"
        (sheet.invalid if stops else sheet.unsupported)(
            "lr_scheduler",
            "stops unless Adafactor has relative_step=True" if stops else f"Kiln has no schedule '{name}'",
        )
        _leave(sheet, "belongs to a schedule that was not taken over", warmup)
    else:
        sheet.set("optim.schedule", SCHEDULES[name])
        note = "its fall is a straight line, there a cosine" if name == "warmup_stable_decay" else ""
        sheet.mapped("lr_scheduler", "optim.schedule", SCHEDULES[name], note)
        _schedule_options(sheet, name)
        _warmup(sheet, name, warmup)


def _schedule_options(sheet: Sheet, name: str) -> None:
    """cycles, power and the lowest rate, for the schedules that read them."""
    options: dict[str, Any] = {}
    for argument, option, readers, default in (
        ("lr_scheduler_num_cycles", "cycles", ("cosine_with_restarts",), 1),
        ("lr_scheduler_power", "power", ("polynomial",), 1.0),
        ("lr_scheduler_min_lr_ratio", "min_ratio", ("cosine_with_min_lr", "warmup_stable_decay"), None),
        ("lr_decay_steps", "decay", ("warmup_stable_decay",), None),
    ):
        value = sheet.value(argument)
        if name not in readers:
            sheet.no_effect(argument, f"'{name}' does not read it")
            continue
        value = default if value is None else value
        if option == "decay" and value is not None and value >= 1:
            sheet.unsupported(argument, "Kiln wants the fall as a share of the run (optim.schedule_options.decay)")
        elif value is not None:
            options[option] = value
            sheet.mapped(argument, f"optim.schedule_options.{option}", value)
    pairs, wrong = parse_pairs(list(sheet.value("lr_scheduler_args") or []))
    if pairs or wrong:
        sheet.unsupported("lr_scheduler_args", "Kiln's schedules take optim.schedule_options")
    else:
        sheet.no_effect("lr_scheduler_args", "empty")
    sheet.no_effect("lr_scheduler_type", "empty")
    sheet.no_effect("lr_scheduler_timescale", f"'{name}' does not read it")
    sheet.set("optim.schedule_options", options)


def _warmup(sheet: Sheet, name: str, warmup: float) -> None:
    if name == "constant" and warmup:
        sheet.set("optim.warmup", 0.0)
        sheet.invalid("lr_warmup_steps", "'constant' stops at a warm-up; 'constant_with_warmup' has one")
    else:
        sheet.set("optim.warmup", float(warmup))
        sheet.mapped("lr_warmup_steps", "optim.warmup", float(warmup))


def _other_schedule(sheet: Sheet, path: str, warmup: float) -> None:
    """A schedule class by its name, which overrides lr_scheduler."""
    pairs, _ = parse_pairs(list(sheet.value("lr_scheduler_args") or []))
    word = path.rpartition(".")[2]
    sheet.no_effect("lr_scheduler", f"lr_scheduler_type {word} takes its place")
    if word.lower().startswith("rex"):
        ratio = 0.0
        sheet.mapped("lr_scheduler_type", "optim.schedule", "rex", "one cycle over the whole run")
        sheet.set("optim.schedule_options", {"min_ratio": ratio})
        if pairs:
            sheet.unsupported("lr_scheduler_args", "Kiln's rex is one cycle over the whole run, down to 0")
        _leave(sheet, f"{word} does not read it", warmup)
        return
    lasts = f" ({', '.join(f'{k}={v}' for k, v in pairs.items())})" if pairs else ""
    sheet.set("optim.schedule", "cosine" if "cosine" in word.lower() else "constant")
    sheet.unsupported(
        "lr_scheduler_type", f"Kiln has no {word}{lasts}; the recipe takes '{sheet.setting('optim.schedule')}' instead"
    )
    sheet.unsupported("lr_scheduler_args", f"belongs to {word}")
    _leave(sheet, f"{word} does not read it", warmup)


def _leave(sheet: Sheet, why: str, warmup: float) -> None:
    """Rows for schedule arguments that nothing reads any more."""
    sheet.set("optim.warmup", 0.0)
    if warmup:
        sheet.invalid("lr_warmup_steps", f"{why.split(' does')[0]}: sd-scripts stops at a warm-up")
    for name in (
        "lr_warmup_steps", "lr_scheduler_num_cycles", "lr_scheduler_power", "lr_scheduler_args", "lr_scheduler_type",
        "lr_scheduler_min_lr_ratio", "lr_decay_steps", "lr_scheduler_timescale",
    ):  # fmt: skip
        if not sheet.told(name):
            sheet.no_effect(name, why)
