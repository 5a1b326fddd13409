"""How the weights move: sd-scripts' optimizer, learning rates and schedule as the recipe's [optim]."""

from typing import Any

from lorakiln.exchange.arguments import parse_pairs
from lorakiln.exchange.report import STRONGEST, Fate, Given, Sheet
from lorakiln.exchange.schedule import schedule

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
# options that these have there and Kiln's have not, with the value at which they do nothing
ABSENT: dict[str, dict[str, Any]] = {
    "adamw": {"amsgrad": False, "maximize": False, "differentiable": False},
    "adamw8bit": {"amsgrad": False},
    "lion": {"use_triton": False, "decoupled_weight_decay": False},
    "came": {"weight_decouple": True, "fixed_decay": False, "ams_bound": False, "maximize": False},
}
SWITCHES = {"decouple", "use_bias_correction", "safeguard_warmup", "scale_parameter", "relative_step", "warmup_init"}
BETAS = {"came": 3}  # two for every other
# what `torch.optim` has, which is where a name without a dot is looked for
TORCH = {
    "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "LBFGS", "Muon", "NAdam", "RAdam", "RMSprop",
    "Rprop", "SGD", "SparseAdam",
}  # fmt: skip
LIKE_PRODIGY = "Kiln has no D-Adaptation; Prodigy, which grew out of it, stands in: compare before you rely on it"


def optimizer(sheet: Sheet) -> None:
    """Fill [optim] and the rows of every argument about it."""
    _old_switches(sheet)
    _name(sheet)
    _options(sheet)
    _rates(sheet)
    schedule(sheet)
    clip = sheet.value("max_grad_norm")
    sheet.set("optim.clip", float(clip))
    sheet.mapped("max_grad_norm", "optim.clip", float(clip))


def _old_switches(sheet: Sheet) -> None:
    """--use_8bit_adam and --use_lion_optimizer name the optimizer where nothing else does."""
    for name, optimizer in (("use_8bit_adam", "AdamW8bit"), ("use_lion_optimizer", "Lion")):
        if not sheet.has(name) or sheet.told(name):
            continue
        if sheet.has("optimizer_type"):
            sheet.invalid(name, "stops beside another optimizer")
        else:
            sheet.given["optimizer_type"] = Given(sheet.given[name].key, sheet.given[name].value, optimizer)


def _name(sheet: Sheet) -> None:
    text = str(sheet.value("optimizer_type") or "AdamW")
    word = text.rpartition(".")[2].lower()
    if word in NAMES and not (text.startswith("torch.") and word != "adamw"):
        sheet.set("optim.name", NAMES[word])
        sheet.mapped("optimizer_type", "optim.name", NAMES[word], NOTES.get(word, ""))
    elif word.startswith("dadapt"):
        sheet.set("optim.name", "prodigy")
        sheet.unsupported("optimizer_type", LIKE_PRODIGY)
    elif "prodigy" in word:
        sheet.set("optim.name", "prodigy")
        sheet.unsupported("optimizer_type", f"Kiln has no {text.rpartition('.')[2]}; its Prodigy stands in")
    elif word.endswith("schedulefree"):
        sheet.unsupported("optimizer_type", "Kiln has no schedule-free optimizer; the recipe takes adamw instead")
        sheet.set("optim.name", "adamw")
    elif word.startswith("sgdnesterov"):
        sheet.set("optim.name", "torch.optim.SGD")
        sheet.set("optim.options", {"momentum": 0.9, "nesterov": True})
        sheet.mapped("optimizer_type", "optim.name", "torch.optim.SGD", "with momentum 0.9 and nesterov")
    elif "." not in text and text not in TORCH:
        sheet.set("optim.name", "adamw")
        sheet.invalid("optimizer_type", f"sd-scripts has no optimizer '{text}'; the recipe takes adamw")
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
        if "optimizer_args.eps" in sheet.given:
            sheet.given["optimizer_args.eps1"] = sheet.given["optimizer_args.eps2"] = sheet.given["optimizer_args.eps"]
    options = dict(sheet.setting("optim.options") or {})
    if name == "adafactor":
        relative = bool(pairs.get("relative_step", True) or pairs.get("warmup_init", False))
        options |= {"scale_parameter": True, "relative_step": relative}
        if "relative_step" in pairs:
            pairs["relative_step"] = relative
    taken, told = _sorted_out(sheet, name, pairs)
    sheet.set("optim.options", options | taken)
    for key in pairs:
        _one_option(sheet, key, taken, told)
    if "optimizer_args" in sheet.given:
        _options_row(sheet, words, taken, told, wrong)


def _sorted_out(sheet: Sheet, name: str, pairs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, tuple[Fate, str]]]:
    """(the options that Kiln's optimizer has, with values it takes; what became of the others)."""
    taken: dict[str, Any] = {}
    told: dict[str, tuple[Fate, str]] = {}
    own = sheet.value("optimizer_type") or "AdamW"
    exact = "." not in str(own) and NAMES.get(str(own).lower()) == name
    known, absent = OPTIONS.get(name), ABSENT.get(name, {})
    for key, value in pairs.items():
        if known is None or key in known:
            fits, wanted = _fits(name, key, value) if known else (True, "")
            if not fits:
                told[key] = "invalid", f"must be {wanted}"
            elif value is not None:
                taken[key] = bool(value) if key in SWITCHES else value
            else:
                told[key] = "no-effect", "None is its default"
        elif key in IDLE:
            told[key] = "no-effect", IDLE[key]
        elif key in absent:
            idle = bool(value) == absent[key]
            told[key] = ("no-effect", "its default") if idle else ("unsupported", f"Kiln's {name} has no such option")
        elif exact:
            told[key] = "invalid", f"{own} has no such option and stops"
        else:
            told[key] = "unsupported", f"Kiln's {name} has no such option"
    return taken, told


def _fits(name: str, key: str, value: Any) -> tuple[bool, str]:
    """Whether an option's value is of its kind, and which kind that is."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None:
        return True, ""
    if key == "betas":
        count = BETAS.get(name, 2)
        fine = isinstance(value, list) and len(value) == count and all(isinstance(one, int | float) for one in value)
        return fine, f"{count} numbers"
    if key in SWITCHES:
        return isinstance(value, bool) or value in (0, 1), "True or False"
    return number, "a number"


def _one_option(sheet: Sheet, key: str, taken: dict[str, Any], told: dict[str, tuple[Fate, str]]) -> None:
    """The row of an option that is a key of its own in the source (a table instead of `k=v` words)."""
    name = f"optimizer_args.{key}"
    if key in taken:
        sheet.row(name, "mapped", f"optim.options.{key}")
    elif key in told:
        sheet.row(name, told[key][0], "", told[key][1])


def _options_row(
    sheet: Sheet, words: list[str], taken: dict[str, Any], told: dict[str, tuple[Fate, str]], wrong: list[str]
) -> None:
    for word in wrong:
        sheet.invalid(f"optimizer_args.{word.partition('=')[0]}", "cannot be read, and stops")
    notes = [f"{key}: {why}" for key, (_, why) in told.items()] + [
        f"{word}: cannot be read, and stops" for word in wrong
    ]
    fates = [fate for fate, _ in told.values()] + ["invalid" for _ in wrong]
    if taken:
        to = ", ".join(f"optim.options.{key}" for key in taken)
        sheet.row("optimizer_args", "mapped", to, "; ".join(notes))
    elif not words:
        sheet.no_effect("optimizer_args", "empty")
    else:
        fate = next(one for one in STRONGEST if one in fates)
        sheet.row("optimizer_args", fate, "", "; ".join(notes))


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
