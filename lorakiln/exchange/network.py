"""What is trained: sd-scripts' network module and its arguments as the recipe's [adapter]."""

from lorakiln.exchange.blocks import PREFIX, blocks
from lorakiln.exchange.lycoris import lycoris, truth
from lorakiln.exchange.report import Sheet
from lorakiln.exchange.size import alpha_of, factor_of, loraplus, number, size, whole_lokr

KINDS = {"networks.lora": "lora", "networks.loha": "loha", "networks.lokr": "lokr"}
OTHERS = {
    "networks.lora_fa": "LoRA-FA", "networks.dylora": "DyLoRA", "networks.oft": "OFT",
    "networks.lora_flux": "LoRA for Flux", "networks.lora_sd3": "LoRA for SD 3",
}  # fmt: skip


def network(sheet: Sheet) -> None:
    """Fill [adapter] and the rows of every network argument."""
    module = str(sheet.value("network_module") or "networks.lora")
    if module.startswith("lycoris"):
        lycoris(sheet)
    else:
        _kohya(sheet, module)
    _dropouts(sheet)
    reads_all = module in KINDS or module.startswith("lycoris")
    for name in [name for name in sheet.given if name.startswith(PREFIX) and not sheet.told(name)]:
        word = name.removeprefix(PREFIX)
        if sheet.value(name) in (None, "", "0", 0):
            sheet.no_effect(name, "empty or 0: off")
        elif not reads_all:
            sheet.unsupported(name, f"belongs to {OTHERS.get(module, module)}")
        else:
            hint = "; the switch is 'dora_wd'" if word in ("use_dora", "dora", "weight_decompose") else ""
            sheet.no_effect(name, f"{module} never reads '{word}'{hint}")


def _kohya(sheet: Sheet, module: str) -> None:
    """sd-scripts' own modules: convolutions only where conv_dim asks for them."""
    kind = KINDS.get(module, "lora")
    sheet.set("adapter.kind", kind)
    if module in KINDS:
        sheet.mapped("network_module", "adapter.kind", kind)
    else:
        name = OTHERS.get(module, module)
        sheet.unsupported("network_module", f"Kiln has no {name}; the recipe trains a plain LoRA instead")
    if kind != "lokr" or whole_lokr(sheet) is None:
        size(sheet)
    _convolutions(sheet)
    if kind == "lora":
        blocks(sheet)
    else:
        _loha_lokr(sheet, kind)
    loraplus(sheet)


def _convolutions(sheet: Sheet) -> None:
    conv, conv_alpha = number(sheet, "conv_dim", int), number(sheet, "conv_alpha", float)
    if conv is not None and conv < 0:
        sheet.invalid(PREFIX + "conv_dim", "must be at least 0")
    if not conv or conv < 0:
        sheet.set("adapter.conv_rank", 0)
        if not conv:
            sheet.no_effect(PREFIX + "conv_dim", "0: convolutions are left alone")
        sheet.no_effect(PREFIX + "conv_alpha", "has no effect without conv_dim")
        return
    alpha = 1.0 if conv_alpha is None else alpha_of(conv_alpha, conv)
    if conv > 1024 and not sheet.setting("adapter.full_matrix"):
        sheet.set("adapter.conv_rank", 1024)
        sheet.unsupported(PREFIX + "conv_dim", "Kiln's ranks end at 1024")
    else:
        sheet.mapped(PREFIX + "conv_dim", "adapter.conv_rank", 1 if conv > 1024 else conv)
    sheet.set("adapter.conv_alpha", alpha)
    sheet.mapped(PREFIX + "conv_alpha", "adapter.conv_alpha", alpha)


def _loha_lokr(sheet: Sheet, kind: str) -> None:
    name = PREFIX + "use_tucker"
    if truth(sheet.value(name)):
        if sheet.setting("adapter.conv_rank") and not sheet.setting("adapter.full_matrix"):
            sheet.mapped(name, "adapter.tucker", True)
        else:
            sheet.no_effect(name, "there is no convolution of low rank to decompose")
    factor = factor_of(sheet)
    if kind == "lokr" and not sheet.told(PREFIX + "factor"):
        sheet.mapped(PREFIX + "factor", "adapter.factor", factor)


def _dropouts(sheet: Sheet) -> None:
    for name in ("rank_dropout", "module_dropout"):
        value = number(sheet, name, float) or 0.0
        if value <= 0.99:
            sheet.mapped(PREFIX + name, f"adapter.{name}", value)
        else:
            sheet.invalid(PREFIX + name, "a chance of 1 leaves nothing to train")
    neurons = sheet.value("network_dropout")
    if neurons:
        sheet.unsupported("network_dropout", "Kiln drops whole ranks or modules (rank_dropout), not single values")
    else:
        sheet.no_effect("network_dropout", "0 is off")
