"""sd-scripts' 23 blocks of the UNet, each with a rank and a learning rate of its own, as adapter.ranks, optim.rates."""

import math
import re
from typing import Any

from lorakiln.exchange.report import Sheet

PREFIX = "network_args."
# which of sd-scripts' 23 blocks hold which modules, and whether a plain (linear) LoRA has any there
BLOCKS = [("", False)]
BLOCKS += [(f"lora_unet_input_blocks_{n}_*", n in (4, 5, 7, 8)) for n in range(9)]
BLOCKS += [(f"lora_unet_middle_block_{n}_*", n == 1) for n in range(3)]
BLOCKS += [(f"lora_unet_output_blocks_{n}_*", n < 6) for n in range(9)] + [("", False)]
# what the 3x3 convolutions of a block are called: resnets' two, and the samplers' one
RESNET, DOWN, UP = "layers_[23]", "op", "conv"
SPATIAL = {f"lora_unet_input_blocks_{n}_*": [DOWN] if n in (3, 6) else [RESNET] for n in range(1, 9)}
SPATIAL |= {f"lora_unet_middle_block_{n}_*": [RESNET] for n in (0, 2)}
SPATIAL |= {f"lora_unet_output_blocks_{n}_*": [RESNET, UP] if n in (2, 5) else [RESNET] for n in range(9)}
GROUPS = (("down_lr_weight", 1, 9), ("mid_lr_weight", 10, 3), ("up_lr_weight", 13, 9))


def blocks(sheet: Sheet) -> None:
    """Ranks and rates of the blocks; `networks.lora` alone has them."""
    rated = _rates(sheet)
    dims, alphas = sheet.value(PREFIX + "block_dims"), sheet.value(PREFIX + "block_alphas")
    spatial = sheet.value(PREFIX + "conv_block_dims")
    if not dims and not rated:
        for name in ("block_alphas", "conv_block_dims", "conv_block_alphas"):
            sheet.no_effect(PREFIX + name, "has no effect without block_dims")
        return
    if not dims and not spatial and not alphas:
        sheet.no_effect(PREFIX + "conv_block_alphas", "has no effect without conv_block_dims")
        return
    _ranks(sheet)


def _ranks(sheet: Sheet) -> None:
    """One rule a block for the linear layers, and after it one for the 3x3 convolutions."""
    rank, alpha = sheet.setting("adapter.rank"), sheet.setting("adapter.alpha")
    ranks, scales = _numbers(sheet, "block_dims", rank), _numbers(sheet, "block_alphas", alpha)
    conv_rank, conv_alpha = sheet.setting("adapter.conv_rank") or 0, sheet.setting("adapter.conv_alpha") or 1.0
    conv_ranks = _numbers(sheet, "conv_block_dims", conv_rank)
    conv_scales = _numbers(sheet, "conv_block_alphas", conv_alpha)
    if ranks is None or scales is None or conv_ranks is None or conv_scales is None:
        return
    conv = conv_rank or max(map(int, conv_ranks))
    if conv and not conv_rank:
        sheet.set("adapter.conv_rank", min(int(conv), 1024))
        sheet.set("adapter.conv_alpha", conv_alpha)
    rules: list[dict[str, Any]] = []
    for n, (pattern, linear) in enumerate(BLOCKS):
        if linear or (pattern in SPATIAL and conv):
            rules.append(_rule(pattern, ranks[n], scales[n]))
        if conv:
            rules += [_rule(pattern + end, conv_ranks[n], conv_scales[n]) for end in SPATIAL.get(pattern, ())]
    sheet.set("adapter.ranks", rules)
    for name in ("block_dims", "block_alphas"):
        sheet.mapped(PREFIX + name, "adapter.ranks", rules)
    for name in ("conv_block_dims", "conv_block_alphas"):
        if conv:
            sheet.mapped(PREFIX + name, "adapter.ranks", rules)
        else:
            sheet.no_effect(PREFIX + name, "has no effect without conv_block_dims")


def _rule(pattern: str, rank: float, alpha: float) -> dict[str, Any]:
    """rank 0 leaves a block out, alpha 0 means the rank."""
    rule = {"pattern": pattern, "rank": int(rank)}
    return rule | {"alpha": float(alpha)} if alpha and rank else rule


def _numbers(sheet: Sheet, name: str, default: float) -> list[float] | None:
    """23 numbers, `default` for all where nothing is said; None, and a row, where sd-scripts stops."""
    text = sheet.value(PREFIX + name)
    if not text:
        return [default] * len(BLOCKS)
    numbers = _list(str(text))
    whole = not name.endswith("dims") or all(isinstance(one, int) for one in numbers or [])
    if numbers is None or len(numbers) != len(BLOCKS) or not whole:
        sheet.invalid(PREFIX + name, f"SDXL needs {len(BLOCKS)} numbers, one for each block")
        return None
    return numbers


def _rates(sheet: Sheet) -> bool:
    """Factors on the learning rate for the blocks going down, in the middle and going up; whether there are any."""
    threshold = _threshold(sheet)
    rules: list[dict[str, Any]] = []
    found = []
    for name, first, count in GROUPS:
        text = sheet.value(PREFIX + name)
        if not text:
            continue
        factors, why = _factors(str(text), count, words=name != "mid_lr_weight")
        if factors is None:
            sheet.row(PREFIX + name, "no-effect" if why.startswith("sd-scripts") else "invalid", "", why)
            continue
        conv = bool(sheet.setting("adapter.conv_rank"))
        rules += [{"pattern": pattern, "factor": float(factor) if factor > threshold else 0.0}
                  for (pattern, linear), factor in zip(BLOCKS[first : first + count], factors, strict=True)
                  if linear or (conv and pattern in SPATIAL)]  # fmt: skip
        found.append((name, why))
    for name, why in found:
        sheet.mapped(PREFIX + name, "optim.rates", rules, why)
    name = PREFIX + "block_lr_zero_threshold"
    if found and threshold:
        sheet.mapped(name, "optim.rates", rules)
    elif not sheet.told(name):
        sheet.no_effect(name, "has no effect without weights for the blocks" if threshold else "0 is off")
    return bool(found)


def _threshold(sheet: Sheet) -> float:
    text = str(sheet.value(PREFIX + "block_lr_zero_threshold") or "0")
    numbers = _list(text)
    if numbers is None or len(numbers) != 1:
        sheet.invalid(PREFIX + "block_lr_zero_threshold", "must be a number")
        return 0.0
    return numbers[0]


def _factors(text: str, count: int, *, words: bool) -> tuple[list[float] | None, str]:
    """(one factor a block, what was done to get there): a list that is too short is filled up with 1.

    kohya's words ("sine", "reverse_linear+.25") are curves over the blocks; a number without a comma is neither.
    """
    if words and "," not in text:
        curve = _curve(text, count)
        return curve, "" if curve else f"sd-scripts knows no curve '{text}' and passes over it"
    numbers = _list(re.sub(r"(^|,)\s*(?=,|$)", r"\g<1>0", text))  # nothing between two commas is 0
    if numbers is None:
        return None, "must be numbers with commas between"
    if len(numbers) == count:
        return numbers, ""
    return (numbers + [1.0] * count)[:count], f"{count} blocks: the rest is 1" if len(numbers) < count else "cut short"


def _curve(text: str, count: int) -> list[float] | None:
    name, _, base = text.partition("+")
    shape = {
        "sine": lambda share: math.sin(math.pi * share / 2), "linear": lambda share: share, "zeros": lambda share: 0.0,
        "cosine": lambda share: math.sin(math.pi * (1 - share) / 2), "reverse_linear": lambda share: 1 - share,
    }.get(name.strip())  # fmt: skip
    added = _list(base or "0")
    if shape is None or added is None or len(added) != 1:
        return None
    return [round(shape(n / (count - 1)) + added[0], 9) for n in range(count)]


def _list(text: str) -> list[Any] | None:
    """Comma-separated numbers, whole ones as int; None for anything else."""
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d{1,2})?", word, re.IGNORECASE) for word in words):
        return None
    return [int(word) if re.fullmatch(r"[-+]?\d{1,9}", word) else float(word) for word in words]
