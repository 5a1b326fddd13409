"""What is trained: sd-scripts' network module and its arguments, LyCORIS's too, as the recipe's [adapter]."""

import re
from collections.abc import Callable
from typing import Any

from lorakiln.exchange.arguments import Unreadable, read_number
from lorakiln.exchange.report import Sheet

PREFIX = "network_args."
LYCORIS = {"lora": "lora", "locon": "lora", "loha": "loha", "lokr": "lokr"}
OTHER_ALGOS = {
    "ia3": "(IA)^3", "glora": "GLoRA", "dylora": "DyLoRA", "diag-oft": "Diag-OFT", "boft": "BOFT",
    "full": "native fine-tuning", "tlora": "T-LoRA", "abba": "ABBA",
}  # fmt: skip
OTHER_MODULES = {"networks.lora_fa": "LoRA-FA", "networks.dylora": "DyLoRA", "networks.oft": "OFT"}
# rank from which LoKr's larger factor needs no rank, for the largest layer of SDXL (10240 = 80 x 128) at factor -1
LOKR_FULL = 1025
# the sizes that SDXL's layers have; their most even split gives LoKr's small factor
SDXL_SIZES = (320, 640, 768, 960, 1280, 1920, 2048, 2560, 2816, 3072, 5120, 10240)
# which of sd-scripts' 23 blocks hold which modules, and whether a plain (linear) LoRA has any there
BLOCKS = [("", False)]
BLOCKS += [(f"lora_unet_input_blocks_{n}_*", n in (4, 5, 7, 8)) for n in range(9)]
BLOCKS += [(f"lora_unet_middle_block_{n}_*", n == 1) for n in range(3)]
BLOCKS += [(f"lora_unet_output_blocks_{n}_*", n < 6) for n in range(9)] + [("", False)]


def network(sheet: Sheet) -> None:
    """Fill [adapter] and the rows of every network argument."""
    module = str(sheet.value("network_module") or "networks.lora")
    if module.startswith("lycoris"):
        _lycoris(sheet)
    else:
        _kohya(sheet, module)
    _dropouts(sheet)
    for name in [name for name in sheet.given if name.startswith(PREFIX) and not sheet.told(name)]:
        word = name.removeprefix(PREFIX)
        if sheet.value(name) in (None, "", "0", 0):
            sheet.no_effect(name, "empty or 0: off")
            continue
        hint = "; the switch is 'dora_wd'" if word in ("use_dora", "dora", "weight_decompose") else ""
        sheet.no_effect(name, f"{module} never reads '{word}'{hint}")


def _kohya(sheet: Sheet, module: str) -> None:
    sheet.set("adapter.kind", "lora")
    if module == "networks.lora":
        sheet.mapped("network_module", "adapter.kind", "lora")
    else:
        name = OTHER_MODULES.get(module, module)
        sheet.unsupported("network_module", f"Kiln has no {name}; the recipe trains a plain LoRA instead")
    _size(sheet, rank_default=4)
    conv, conv_alpha = _number(sheet, "conv_dim", int), _number(sheet, "conv_alpha", float)
    if conv:
        sheet.mapped(PREFIX + "conv_dim", "adapter.conv_rank", min(conv, 1024))
        sheet.set("adapter.conv_alpha", 1.0 if conv_alpha is None else _alpha(conv_alpha, conv))
        sheet.mapped(PREFIX + "conv_alpha", "adapter.conv_alpha", sheet.setting("adapter.conv_alpha"))
    else:
        sheet.set("adapter.conv_rank", 0)
        sheet.no_effect(PREFIX + "conv_dim", "0: convolutions are left alone")
        sheet.no_effect(PREFIX + "conv_alpha", "has no effect without conv_dim")
    _blocks(sheet, conv=bool(conv))
    _loraplus(sheet)


def _lycoris(sheet: Sheet) -> None:
    algo = str(sheet.value(PREFIX + "algo") or "lora").lower()
    kind = LYCORIS.get(algo)
    sheet.set("adapter.kind", kind or "lora")
    if kind is None:
        name = OTHER_ALGOS.get(algo, algo)
        for argument in ("network_module", PREFIX + "algo"):
            sheet.unsupported(argument, f"Kiln has no {name}; the recipe trains a plain LoRA instead")
    else:
        sheet.always("network_module", "LyCORIS's kinds are Kiln's own") if sheet.has(PREFIX + "algo") else None
        sheet.mapped(PREFIX + "algo", "adapter.kind", kind, "'lora' in LyCORIS is LoCon" if algo == "lora" else "")
        sheet.mapped("network_module", "adapter.kind", kind)
    if algo == "ia3":
        for argument in ("network_dim", "network_alpha", PREFIX + "conv_dim", PREFIX + "conv_alpha"):
            sheet.no_effect(argument, "(IA)^3 has no rank")
        sheet.unsupported(PREFIX + "train_on_input", "belongs to (IA)^3")
        return
    rank = _lokr_full(sheet) if kind == "lokr" else None
    if rank is None:
        rank = _size(sheet, rank_default=4)
    _lycoris_targets(sheet, rank)
    _lycoris_options(sheet, kind or "lora", rank)
    _loraplus(sheet)


def _size(sheet: Sheet, rank_default: int) -> int:
    """rank and alpha; 0 or nothing for alpha means the rank, a scale of one."""
    rank = sheet.value("network_dim") or rank_default
    alpha = _alpha(sheet.value("network_alpha"), rank)
    if rank > 1024:
        sheet.set("adapter.rank", 1024)
        sheet.unsupported("network_dim", "Kiln's ranks end at 1024")
    else:
        sheet.set("adapter.rank", rank)
        sheet.mapped("network_dim", "adapter.rank", rank)
    sheet.set("adapter.alpha", alpha)
    sheet.mapped("network_alpha", "adapter.alpha", alpha, "" if sheet.value("network_alpha") else "0 means the rank")
    return rank


def _lokr_full(sheet: Sheet) -> int | None:
    """LoKr with a rank too large for any layer trains both factors whole; then rank and alpha count for nothing."""
    rank = sheet.value("network_dim") or 4
    if rank < LOKR_FULL:
        return None
    sheet.mapped(
        "network_dim", "adapter.full_matrix", True, "larger than any layer: LoKr's large factor is trained whole"
    )
    sheet.no_effect("network_alpha", "without a rank there is no alpha")
    return rank


def _lycoris_targets(sheet: Sheet, rank: int) -> None:
    """Which layers, by LyCORIS's preset; 'full' adds the convolutions."""
    preset = str(sheet.value(PREFIX + "preset") or "full")
    asked, conv_alpha = _number(sheet, "conv_dim", int), _number(sheet, "conv_alpha", float)
    conv = rank if asked is None else asked
    conv_alpha = _alpha(sheet.value("network_alpha") if conv_alpha is None else conv_alpha, conv or 1)
    if preset in ("attn-mlp", "attn-only", "unet-transformer-only"):
        for argument in ("conv_dim", "conv_alpha"):
            sheet.no_effect(PREFIX + argument, f"preset {preset} has no convolutions")
    elif sheet.setting("adapter.full_matrix"):
        sheet.set("adapter.conv_rank", 1)
        sheet.no_effect(PREFIX + "conv_alpha", "without a rank there is no alpha")
        sheet.mapped(PREFIX + "conv_dim", "adapter.conv_rank", 1, "trained whole like the rest; any number does")
    else:
        sheet.set("adapter.conv_rank", min(conv, 1024))
        sheet.set("adapter.conv_alpha", conv_alpha)
        why = "" if conv else "LyCORIS would still adapt the 1x1 convolutions, Kiln does not"
        sheet.mapped(PREFIX + "conv_dim", "adapter.conv_rank", min(conv, 1024), why)
        sheet.mapped(PREFIX + "conv_alpha", "adapter.conv_alpha", conv_alpha)
    if preset == "full":
        sheet.mapped(PREFIX + "preset", "", None, "'full' is the linear layers and, by conv_rank, the convolutions")
    elif preset == "attn-mlp":
        sheet.mapped(PREFIX + "preset", "adapter.conv_rank", 0)
    elif preset == "attn-only":
        patterns = ["*_attn1_*", "*_attn2_*"] + (["*_self_attn_*"] if _trains_text(sheet) else [])
        sheet.set("adapter.conv_rank", 0)
        sheet.mapped(PREFIX + "preset", "adapter.targets", patterns)
    elif preset == "unet-transformer-only":
        sheet.set("adapter.conv_rank", 0)
        sheet.mapped(PREFIX + "preset", "optim.text_lr", 0.0, "this preset leaves the text encoders alone")
    else:
        sheet.unsupported(PREFIX + "preset", f"Kiln has no preset '{preset}'; name its layers in adapter.targets")


def _trains_text(sheet: Sheet) -> bool:
    return not sheet.value("network_train_unet_only") and sheet.value("text_encoder_lr") != 0


def _lycoris_options(sheet: Sheet, kind: str, rank: int) -> None:
    _switch(sheet, "dora_wd", "adapter.dora")
    if sheet.setting("adapter.dora"):
        given = sheet.value(PREFIX + "wd_on_output")
        axis = "output" if given is None or lycoris_truth(given) else "input"
        sheet.set("adapter.dora_axis", axis)
        sheet.mapped(PREFIX + "wd_on_output", "adapter.dora_axis", axis)
    else:
        sheet.no_effect(PREFIX + "wd_on_output", "belongs to DoRA, which is off")
    tucker = [name for name in ("use_tucker", "use_cp", "use_conv_cp") if PREFIX + name in sheet.given]
    wanted = any(lycoris_truth(sheet.value(PREFIX + name)) for name in tucker)
    for name in tucker:
        if wanted and (sheet.setting("adapter.full_matrix") or not sheet.setting("adapter.conv_rank")):
            sheet.no_effect(PREFIX + name, "there is no convolution of low rank to decompose")
        else:
            sheet.mapped(PREFIX + name, "adapter.tucker", wanted)
    _switch(sheet, "rs_lora", "adapter.rank_stabilised")
    if kind == "lokr":
        _lokr_options(sheet, rank)
    for name in ("factor", "decompose_both", "full_matrix", "unbalanced_factorization"):
        if not sheet.told(PREFIX + name):
            sheet.no_effect(PREFIX + name, "belongs to LoKr")
    _lycoris_extras(sheet)


def _lycoris_extras(sheet: Sheet) -> None:
    """What Kiln has nothing like, and what LyCORIS itself never reads or computes the same without."""
    for name, what in {
        "train_norm": "trains the norm layers too",
        "use_scalar": "trains a scalar before each change",
        "unbalanced_factorization": "splits LoKr's factors the other way round",
        "constraint": "belongs to OFT",
        "rescaled": "belongs to OFT",
        "constrain": "belongs to OFT",
        "block_size": "belongs to DyLoRA",
        "bypass_mode": "computes the same another way",
        "rank_dropout_scale": "LyCORIS's kohya module never reads it",
    }.items():
        value = sheet.value(PREFIX + name)
        if sheet.told(PREFIX + name):
            continue
        if not what.startswith(("trains", "splits")):
            sheet.no_effect(PREFIX + name, what)
        elif not lycoris_truth(value) or str(value) in ("0", "0.0"):
            sheet.no_effect(PREFIX + name, "off")
        else:
            sheet.unsupported(PREFIX + name, f"Kiln has nothing that {what}")


def _lokr_options(sheet: Sheet, rank: int) -> None:
    factor = _number(sheet, "factor", int)
    sheet.mapped(PREFIX + "factor", "adapter.factor", -1 if factor is None else factor)
    _switch(sheet, "full_matrix", "adapter.full_matrix")
    both = PREFIX + "decompose_both"
    if both not in sheet.given:
        return
    if sheet.setting("adapter.full_matrix") or not lokr_splits_small_factor(rank, factor or -1):
        sheet.no_effect(both, f"at rank {rank} the small factor is never split")
    else:
        # lycoris/kohya.py hands the text on, and "False" is true in Python
        on = bool(sheet.value(both))
        why = "LyCORIS takes the text 'False' for true" if on and not lycoris_truth(sheet.value(both)) else ""
        sheet.mapped(both, "adapter.decompose_both", on, why)


def lokr_splits_small_factor(rank: int, factor: int) -> bool:
    """Whether LyCORIS's decompose_both does anything: its small factor of some layer must be over twice the rank."""
    return rank < max(_split(size, factor) for size in SDXL_SIZES) / 2


def _split(size: int, factor: int) -> int:
    """LyCORIS's `factorization`, its smaller result: `factor` if it divides, else the most even split up to it."""
    if factor > 0 and size % factor == 0:
        return min(factor, size // factor)
    limit = factor if factor > 0 else size
    best = max((m for m in range(1, int(size**0.5) + 1) if size % m == 0 and m <= limit), default=1)
    return best


def _dropouts(sheet: Sheet) -> None:
    for name in ("rank_dropout", "module_dropout"):
        value = _number(sheet, name, float) or 0.0
        if value <= 0.99:
            sheet.mapped(PREFIX + name, f"adapter.{name}", value)
        else:
            sheet.invalid(PREFIX + name, "a chance of 1 leaves nothing to train")
    neurons = sheet.value("network_dropout")
    if neurons:
        sheet.unsupported("network_dropout", "Kiln drops whole ranks or modules (rank_dropout), not single values")
    else:
        sheet.no_effect("network_dropout", "0 is off")


def _blocks(sheet: Sheet, *, conv: bool) -> None:
    """kohya's 23 ranks, one a block, as patterns."""
    dims, alphas = sheet.value(PREFIX + "block_dims"), sheet.value(PREFIX + "block_alphas")
    if dims:
        ranks = _list(dims)
        scales = _list(alphas) if alphas else [sheet.value("network_alpha") or 1] * len(BLOCKS)
        if not (ranks and scales and len(ranks) == len(scales) == len(BLOCKS)):
            sheet.invalid(PREFIX + "block_dims", f"SDXL needs {len(BLOCKS)} numbers, one for each block")
        else:
            rules = _rules(ranks, scales, conv)
            sheet.mapped(PREFIX + "block_dims", "adapter.ranks", rules)
            sheet.mapped(PREFIX + "block_alphas", "adapter.ranks", rules)
    elif alphas:
        sheet.no_effect(PREFIX + "block_alphas", "has no effect without block_dims")
    for name in ("conv_block_dims", "conv_block_alphas"):
        if sheet.has(PREFIX + name):
            sheet.unsupported(PREFIX + name, "name the convolutions in adapter.ranks instead")
    _block_rates(sheet)


def _rules(ranks: list[Any], alphas: list[Any], conv: bool) -> list[dict[str, Any]]:
    """adapter.ranks of the blocks that hold a layer; rank 0 leaves a block out, alpha 0 means the rank."""
    rules = []
    for (pattern, linear), rank, alpha in zip(BLOCKS, ranks, alphas, strict=True):
        if linear or (pattern and conv):
            rule = {"pattern": pattern, "rank": int(rank)}
            rules.append(rule | {"alpha": float(alpha)} if alpha and rank else rule)
    return rules


def _block_rates(sheet: Sheet) -> None:
    """Factors on the learning rate for the blocks going down, in the middle and going up."""
    rules: list[dict[str, Any]] = []
    for name, first, count in (("down_lr_weight", 1, 9), ("mid_lr_weight", 10, 3), ("up_lr_weight", 13, 9)):
        value = sheet.value(PREFIX + name)
        if not value:
            continue
        factors = _list(value)
        if factors is None or len(factors) != count:
            sheet.unsupported(PREFIX + name, f"only {count} plain numbers, one for each block, can be taken over")
            continue
        rules += [{"pattern": pattern, "factor": float(factor)}
                  for (pattern, linear), factor in zip(BLOCKS[first : first + count], factors, strict=True)
                  if linear or sheet.setting("adapter.conv_rank")]  # fmt: skip
        sheet.mapped(PREFIX + name, "optim.rates", list(rules))
    threshold = _number(sheet, "block_lr_zero_threshold", float)
    if threshold:
        rules = [rule | {"factor": 0.0} if rule["factor"] <= threshold else rule for rule in rules]
        sheet.mapped(PREFIX + "block_lr_zero_threshold", "optim.rates", rules) if rules else sheet.no_effect(
            PREFIX + "block_lr_zero_threshold", "has no effect without weights for the blocks"
        )


def _loraplus(sheet: Sheet) -> None:
    both, unet, text = (_number(sheet, f"loraplus_{part}lr_ratio", float) for part in ("", "unet_", "text_encoder_"))
    names = [PREFIX + f"loraplus_{part}lr_ratio" for part in ("", "unet_", "text_encoder_")]
    factor = unet or both
    if factor and text and text != factor:
        sheet.unsupported(names[2], "Kiln has one LoRA+ factor for all parts")
        text = None
    for name, value in zip(names, (both, unet, text), strict=True):
        if value and value >= 1:
            sheet.mapped(name, "optim.loraplus", float(factor or value))
        elif name in sheet.given and not sheet.told(name):
            sheet.no_effect(name, "0 is off")


def _switch(sheet: Sheet, name: str, to: str) -> None:
    if PREFIX + name in sheet.given:
        sheet.mapped(PREFIX + name, to, lycoris_truth(sheet.value(PREFIX + name)))


def lycoris_truth(value: Any) -> bool:
    """How LyCORIS reads a switch: everything but "false" is true."""
    return value is not None and str(value).lower() != "false"


def _number(sheet: Sheet, name: str, kind: Callable[[Any], Any]) -> Any:
    """A network argument as a number, None where it is missing; a row where it is not a number."""
    value = sheet.value(PREFIX + name)
    if value in (None, ""):
        return None
    try:
        return read_number(value, int if kind is int else float)
    except Unreadable as error:
        if not sheet.told(PREFIX + name):
            sheet.invalid(PREFIX + name, str(error))
        return None


def _alpha(alpha: float | None, rank: int) -> float:
    return float(alpha or rank)


def _list(value: Any) -> Any:
    """Comma-separated numbers; None for kohya's words ("sine", "reverse_linear+.25")."""
    words = [word.strip() for word in str(value).split(",")]
    if all(re.fullmatch(r"[-+]?\d+(\.\d*)?(e-?\d+)?|\.\d+", word) for word in words):
        return [float(word) if "." in word else int(float(word)) for word in words]
    return None
