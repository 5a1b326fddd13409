"""LyCORIS's network arguments, as its `kohya` module reads them, as the recipe's [adapter]."""

from typing import Any

from lorakiln.exchange.blocks import DOWN, PREFIX, RESNET, UP
from lorakiln.exchange.report import Sheet
from lorakiln.exchange.size import LOKR_FULL, alpha_of, factor_of, loraplus, number, size, split, whole_lokr

KINDS = {"lora": "lora", "locon": "lora", "loha": "loha", "lokr": "lokr"}
OTHERS = {
    "ia3": "(IA)^3", "glora": "GLoRA", "dylora": "DyLoRA", "diag-oft": "Diag-OFT", "boft": "BOFT",
    "full": "native fine-tuning", "tlora": "T-LoRA", "abba": "ABBA",
}  # fmt: skip
# what its presets train: whether the 3x3 convolutions, whether the text encoders
PRESETS = {
    "full": (True, True), "full-lin": (False, True), "attn-mlp": (False, True), "attn-only": (False, True),
    "unet-only": (True, False), "unet-transformer-only": (False, False), "unet-convblock-only": (True, False),
}  # fmt: skip
# the sizes that SDXL's layers have; their most even split gives LoKr's small factor
SDXL_SIZES = (320, 640, 768, 960, 1280, 1920, 2048, 2560, 2816, 3072, 5120, 10240)
EXTRAS = {
    "train_norm": "trains the norm layers too",
    "use_scalar": "trains a scalar before each change",
    "unbalanced_factorization": "splits LoKr's factors the other way round",
    "dropout": "drops single values",
}
OFT = ("constraint", "constrain", "rescaled")
IDLE = {
    "block_size": "belongs to DyLoRA",
    "bypass_mode": "computes the same another way",
    "rank_dropout_scale": "LyCORIS's kohya module never reads it",
    "train_on_input": "belongs to (IA)^3",
    "disable_conv_cp": "use_tucker is the switch",
    "train_t5xxl": "SDXL has no T5",
    "train_llm_adapter": "SDXL has no such part",
}


def lycoris(sheet: Sheet) -> None:
    """Fill [adapter] from LyCORIS's arguments, with a row for each that it reads."""
    algo = str(sheet.value(PREFIX + "algo") or "lora").lower()
    kind = KINDS.get(algo)
    sheet.set("adapter.kind", kind or "lora")
    if kind is None:
        name = OTHERS.get(algo, algo)
        for argument in ("network_module", PREFIX + "algo"):
            sheet.unsupported(argument, f"Kiln has no {name}; the recipe trains a plain LoRA instead")
    else:
        sheet.mapped(PREFIX + "algo", "adapter.kind", kind, "'lora' in LyCORIS is LoCon" if algo == "lora" else "")
        sheet.mapped("network_module", "adapter.kind", kind)
    if algo == "ia3":
        _ia3(sheet)
        return
    rank = whole_lokr(sheet) if kind == "lokr" else None
    if rank is None:
        rank = size(sheet)
    _targets(sheet, rank)
    _options(sheet, kind or "lora", rank)
    _extras(sheet, algo)
    loraplus(sheet)


def _ia3(sheet: Sheet) -> None:
    for argument in ("network_dim", "network_alpha", PREFIX + "conv_dim", PREFIX + "conv_alpha"):
        sheet.no_effect(argument, "(IA)^3 has no rank")
    for name in ("train_on_input", "preset"):
        sheet.unsupported(PREFIX + name, "belongs to (IA)^3")
    _extras(sheet, "ia3")


def _targets(sheet: Sheet, rank: int) -> None:
    """Which layers, by LyCORIS's preset; 'full' adds the convolutions."""
    preset = str(sheet.value(PREFIX + "preset") or "full")
    spatial, texts = PRESETS.get(preset, (True, True))
    if spatial:
        _convolutions(sheet, rank)
    else:
        sheet.set("adapter.conv_rank", 0)
        for argument in ("conv_dim", "conv_alpha"):
            sheet.no_effect(PREFIX + argument, f"preset {preset} has no convolutions")
    if preset not in PRESETS:
        sheet.unsupported(PREFIX + "preset", f"Kiln has no preset '{preset}'; name its layers in adapter.targets")
        return
    to, why = "adapter.conv_rank", ""
    if preset == "full":
        why = "'full' is the linear layers and, by conv_rank, the convolutions"
    elif preset == "full-lin":
        why = "LyCORIS would also adapt the resnets' linear layers"
    elif preset == "attn-only":
        sheet.set("adapter.targets", ["*_attn1_*", "*_attn2_*"] + (["*_self_attn_*"] if _trains_text(sheet) else []))
        to = "adapter.targets"
    elif preset == "unet-convblock-only":
        ends = [f"*{RESNET.replace('[23]', '?')}", "*_skip_connection"]
        ends += [f"*_{end}" for end in (DOWN, UP)] if sheet.setting("adapter.conv_rank") else []
        sheet.set("adapter.targets", [f"lora_unet_{end}" for end in ends])
        to = "adapter.targets"
    if not texts:
        sheet.set("optim.text_lr", 0.0)
        to, why = f"{to}, optim.text_lr", "this preset leaves the text encoders alone"
    sheet.row(PREFIX + "preset", "mapped", to, why)


def _trains_text(sheet: Sheet) -> bool:
    return not sheet.value("network_train_unet_only") and sheet.value("text_encoder_lr") != 0


def _convolutions(sheet: Sheet, rank: int) -> None:
    asked, given_alpha = number(sheet, "conv_dim", int), number(sheet, "conv_alpha", float)
    conv = rank if asked is None else max(0, asked)
    to, name = "adapter.conv_rank", PREFIX + "conv_dim"
    if sheet.setting("adapter.full_matrix") and conv >= LOKR_FULL:
        sheet.no_effect(PREFIX + "conv_alpha", "without a rank there is no alpha")
        sheet.mapped(name, to, 1, "trained whole like the rest; any number does")
        return
    if sheet.setting("adapter.full_matrix") and conv > 0:
        _whole_by_rank(sheet)
    if conv > 1024:
        sheet.set(to, 1024)
        sheet.unsupported(name, "Kiln's ranks end at 1024")
    else:
        sheet.mapped(name, to, conv, "" if conv else "LyCORIS would still adapt the 1x1 convolutions, Kiln does not")
    if conv == 0:
        sheet.no_effect(PREFIX + "conv_alpha", "has no effect without conv_dim")
        return
    alpha = alpha_of(sheet.value("network_alpha") if given_alpha is None else given_alpha, max(1, conv))
    sheet.mapped(PREFIX + "conv_alpha", "adapter.conv_alpha", alpha)


def _whole_by_rank(sheet: Sheet) -> None:
    """The linear layers' large factors whole and the convolutions' not: by a rank that none of them can use up."""
    factor = factor_of(sheet)
    if max(size // split(size, factor) for size in SDXL_SIZES) > 2 * 1024:
        sheet.unsupported(PREFIX + "conv_dim", "Kiln trains all large factors whole, or none at this factor")
        return
    sheet.set("adapter.full_matrix", False)
    sheet.set("adapter.rank", 1024)
    sheet.set("adapter.alpha", 1024.0)
    if "network_dim" in sheet.given:
        sheet.rows.pop(sheet.given["network_dim"].key, None)
    sheet.row("network_dim", "mapped", "adapter.rank", "from half a factor's size on LoKr trains it whole")


def _options(sheet: Sheet, kind: str, rank: int) -> None:
    _switch(sheet, "dora_wd", "adapter.dora")
    if sheet.setting("adapter.dora"):
        given = sheet.value(PREFIX + "wd_on_output")
        axis = "output" if given is None or truth(given) else "input"
        sheet.set("adapter.dora_axis", axis)
        sheet.mapped(PREFIX + "wd_on_output", "adapter.dora_axis", axis)
    else:
        sheet.no_effect(PREFIX + "wd_on_output", "belongs to DoRA, which is off")
    _tucker(sheet)
    _switch(sheet, "rs_lora", "adapter.rank_stabilised")
    if kind == "lokr":
        _lokr(sheet, rank)
    for name in ("factor", "decompose_both", "full_matrix", "unbalanced_factorization"):
        if not sheet.told(PREFIX + name):
            sheet.no_effect(PREFIX + name, "belongs to LoKr")


def _tucker(sheet: Sheet) -> None:
    """Three names for one switch: the first of them that is given decides, even where it says "False"."""
    given = [name for name in ("use_conv_cp", "use_cp", "use_tucker") if sheet.value(PREFIX + name)]
    wanted = bool(given) and truth(sheet.value(PREFIX + given[0]))
    whole = sheet.setting("adapter.full_matrix") or not sheet.setting("adapter.conv_rank")
    for name in given:
        if name != given[0]:
            sheet.no_effect(PREFIX + name, f"{given[0]} decides")
        elif wanted and whole:
            sheet.no_effect(PREFIX + name, "there is no convolution of low rank to decompose")
        else:
            sheet.mapped(PREFIX + name, "adapter.tucker", wanted)


def _extras(sheet: Sheet, algo: str) -> None:
    """What Kiln has nothing like, and what LyCORIS itself never reads or computes the same without."""
    oft = algo in ("diag-oft", "boft")
    for name, what in EXTRAS.items():
        value = sheet.value(PREFIX + name)
        if sheet.told(PREFIX + name):
            continue
        if not truth(value) or _is_zero(value):
            sheet.no_effect(PREFIX + name, "off")
        else:
            sheet.unsupported(PREFIX + name, f"Kiln has nothing that {what}")
    for name in OFT:
        value = sheet.value(PREFIX + name)
        if not oft:
            sheet.no_effect(PREFIX + name, "belongs to OFT")
        elif not truth(value) or _is_zero(value):
            sheet.no_effect(PREFIX + name, "off")
        else:
            sheet.unsupported(PREFIX + name, f"belongs to {OTHERS[algo]}")
    if algo == "dylora":
        sheet.unsupported(PREFIX + "block_size", "belongs to DyLoRA")
    for name, why in IDLE.items():
        if not sheet.told(PREFIX + name):
            sheet.no_effect(PREFIX + name, why)


def _is_zero(value: Any) -> bool:
    return str(value).strip() in ("", "0", "0.0")


def _lokr(sheet: Sheet, rank: int) -> None:
    factor = factor_of(sheet)
    if not sheet.told(PREFIX + "factor"):
        sheet.mapped(PREFIX + "factor", "adapter.factor", factor)
    _switch(sheet, "full_matrix", "adapter.full_matrix")
    both = PREFIX + "decompose_both"
    if sheet.value(both) is None:
        return
    if sheet.setting("adapter.full_matrix") or not splits_small_factor(rank, factor):
        sheet.no_effect(both, f"at rank {rank} the small factor is never split")
    else:
        # lycoris/kohya.py hands the text on, and "False" is true in Python
        on = bool(sheet.value(both))
        why = "LyCORIS takes the text 'False' for true" if on and not truth(sheet.value(both)) else ""
        sheet.mapped(both, "adapter.decompose_both", on, why)


def splits_small_factor(rank: int, factor: int) -> bool:
    """Whether LyCORIS's decompose_both does anything: its small factor of some layer must be over twice the rank."""
    return rank < max(split(size, factor) for size in SDXL_SIZES) / 2


def _switch(sheet: Sheet, name: str, to: str) -> None:
    if PREFIX + name in sheet.given:
        sheet.mapped(PREFIX + name, to, truth(sheet.value(PREFIX + name)))


def truth(value: Any) -> bool:
    """How LyCORIS reads a switch: everything but "false" is true."""
    return value is not None and str(value).lower() != "false"
