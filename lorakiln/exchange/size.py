"""Rank, alpha and LoRA+ of a network, which all kinds share; how LoKr splits a layer."""

from typing import Any

from lorakiln.exchange.arguments import Unreadable, read_number
from lorakiln.exchange.blocks import PREFIX
from lorakiln.exchange.report import Sheet

# rank from which LoKr's larger factor needs no rank, for the largest layer of SDXL (10240 = 80 x 128) at factor -1
LOKR_FULL = 1025
RANK = 4  # sd-scripts' own


def size(sheet: Sheet) -> int:
    """rank and alpha; 0 or nothing for alpha means the rank, a scale of one."""
    given = sheet.value("network_dim")
    rank = RANK if given is None else given
    alpha = alpha_of(sheet.value("network_alpha"), rank)
    if rank > 1024:
        sheet.set("adapter.rank", 1024)
        sheet.unsupported("network_dim", "Kiln's ranks end at 1024")
    else:
        sheet.mapped("network_dim", "adapter.rank", rank)
        sheet.set("adapter.rank", rank)
    sheet.set("adapter.alpha", alpha)
    sheet.mapped("network_alpha", "adapter.alpha", alpha, "" if sheet.value("network_alpha") else "0 means the rank")
    return rank


def whole_lokr(sheet: Sheet) -> int | None:
    """LoKr with a rank too large for any layer trains both factors whole; then rank and alpha count for nothing."""
    rank = sheet.value("network_dim") or RANK
    if rank < LOKR_FULL:
        return None
    sheet.set("adapter.full_matrix", True)
    why = "larger than any layer: LoKr's large factor is trained whole"
    sheet.mapped("network_dim", "adapter.full_matrix", True, why)
    sheet.no_effect("network_alpha", "without a rank there is no alpha")
    return rank


def alpha_of(alpha: float | None, rank: int) -> float:
    return float(alpha or rank)


def split(size: int, factor: int) -> int:
    """LyCORIS's `factorization`, its smaller result: `factor` if it divides, else the most even split up to it."""
    if factor > 0 and size % factor == 0:
        return min(factor, size // factor)
    limit = factor if factor > 0 else size
    return max((m for m in range(1, int(size**0.5) + 1) if size % m == 0 and m <= limit), default=1)


def factor_of(sheet: Sheet) -> int:
    """LoKr's factor; below 0 it is as even as it goes, and 0 splits nothing off, as 1 does."""
    factor = number(sheet, "factor", int)
    return -1 if factor is None or factor < 0 else max(1, factor)


def loraplus(sheet: Sheet) -> None:
    """LoRA+: one factor in Kiln, one for the UNet and one for the text encoders there."""
    names = [PREFIX + f"loraplus_{part}lr_ratio" for part in ("", "unet_", "text_encoder_")]
    both, unet, text = (number(sheet, name.removeprefix(PREFIX), float) for name in names)
    factor, other = unet or both or 1.0, text or both or 1.0
    trains_text = not sheet.value("network_train_unet_only") and sheet.setting("optim.text_lr") != 0.0
    for name, value in zip(names, (both, unet, text), strict=True):
        if sheet.told(name):
            continue
        if not value:
            sheet.no_effect(name, "0 is off")
        elif value == both and unet and text:
            sheet.no_effect(name, "each part has a factor of its own")
        elif value != factor or (trains_text and factor != other):
            sheet.unsupported(name, "Kiln has one LoRA+ factor for all parts")
        else:
            sheet.mapped(name, "optim.loraplus", float(value))
    if factor != 1:
        sheet.set("optim.loraplus", float(factor))


def number(sheet: Sheet, name: str, kind: type) -> Any:
    """A network argument as a number, None where it is missing; a row where it is not a number."""
    value = sheet.value(PREFIX + name)
    if value in (None, ""):
        return None
    try:
        return read_number(value, kind)
    except Unreadable as error:
        if not sheet.told(PREFIX + name):
            sheet.invalid(PREFIX + name, str(error))
        return None
