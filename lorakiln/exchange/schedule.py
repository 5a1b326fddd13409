"""How the learning rate moves over the run: sd-scripts' scheduler arguments as optim.schedule and its options."""

from typing import Any

from lorakiln.exchange.arguments import parse_pairs
from lorakiln.exchange.report import Sheet

SCHEDULES = {
    "constant": "constant", "constant_with_warmup": "constant", "linear": "linear", "cosine": "cosine",
    "cosine_with_restarts": "cosine_restarts", "polynomial": "polynomial", "cosine_with_min_lr": "cosine",
    "warmup_stable_decay": "wsd",
}  # fmt: skip
ARGUMENTS = (
    "lr_warmup_steps", "lr_scheduler_num_cycles", "lr_scheduler_power", "lr_scheduler_args", "lr_scheduler_type",
    "lr_scheduler_min_lr_ratio", "lr_decay_steps", "lr_scheduler_timescale",
)  # fmt: skip
WHOLE_RUN = 0.999999  # Kiln's shares end below 1


def schedule(sheet: Sheet) -> None:
    """Fill optim.schedule, its options and the warm-up, with a row for each argument about them."""
    name, warmup = str(sheet.value("lr_scheduler") or "constant"), sheet.value("lr_warmup_steps") or 0
    other, optimizer = sheet.value("lr_scheduler_type"), str(sheet.value("optimizer_type") or "")
    if optimizer.lower().endswith("schedulefree"):
        _none(sheet, "a schedule-free optimizer reads no schedule")
    elif sheet.setting("optim.options.relative_step"):
        sheet.set("optim.schedule", "constant")
        if name == "adafactor":
            sheet.mapped("lr_scheduler", "optim.schedule", "constant")
        else:
            sheet.no_effect("lr_scheduler", "Adafactor with relative_step has its own")
        _leave(sheet, "Adafactor with relative_step has its own schedule", warmup)
    elif other:
        _class(sheet, str(other), warmup)
    elif name in SCHEDULES:
        sheet.set("optim.schedule", SCHEDULES[name])
        note = "its fall is a straight line, there a cosine" if name == "warmup_stable_decay" else ""
        sheet.mapped("lr_scheduler", "optim.schedule", SCHEDULES[name], note)
        _warmup(sheet, name, warmup)
        _options(sheet, name)
    else:
        _unknown(sheet, name, warmup)


def _none(sheet: Sheet, why: str) -> None:
    sheet.set("optim.schedule", "constant")
    sheet.no_effect("lr_scheduler", why)
    _leave(sheet, why, 0)


def _unknown(sheet: Sheet, name: str, warmup: float) -> None:
    """A schedule that Kiln does not have, or that sd-scripts does not."""
    sheet.set("optim.schedule", "constant")
    if name == "inverse_sqrt":
        sheet.unsupported("lr_scheduler", "Kiln has no inverse_sqrt; the recipe keeps the rate constant instead")
        sheet.unsupported("lr_scheduler_timescale", "belongs to inverse_sqrt")
        _warmup(sheet, name, warmup)
        _leave(sheet, "'inverse_sqrt' does not read it", 0, keep_warmup=True)
    elif name == "piecewise_constant":
        sheet.unsupported("lr_scheduler", "Kiln has no schedule in steps; the recipe keeps the rate constant instead")
        sheet.unsupported("lr_scheduler_args", "belongs to piecewise_constant")
        _leave(sheet, "'piecewise_constant' does not read it", 0)
    elif name == "adafactor":
        sheet.invalid("lr_scheduler", "stops unless Adafactor has relative_step=True")
        _leave(sheet, "belongs to a schedule that was not taken over", warmup)
    else:
        sheet.invalid("lr_scheduler", f"sd-scripts has no schedule '{name}'; the recipe keeps the rate constant")
        _leave(sheet, "belongs to a schedule that was not taken over", 0)


def _options(sheet: Sheet, name: str) -> None:
    """cycles, power and the lowest rate, for the schedules that read them."""
    sheet.set("optim.schedule_options", {})
    _cycles(sheet, name)
    if name == "polynomial":
        power = sheet.value("lr_scheduler_power")
        _option(sheet, "lr_scheduler_power", "power", 1.0 if power is None else power, above=0)
    else:
        sheet.no_effect("lr_scheduler_power", f"'{name}' does not read it")
    pairs, wrong = parse_pairs(list(sheet.value("lr_scheduler_args") or []))
    lowest, shared = pairs.get("min_lr"), sheet.value("learning_rate")
    by_args = name == "cosine_with_min_lr" and set(pairs) == {"min_lr"} and not wrong and _is_number(lowest)
    if by_args and shared:
        _option(sheet, "lr_scheduler_args", "min_ratio", lowest / shared)
        sheet.no_effect("lr_scheduler_min_lr_ratio", "empty: min_lr decides")
    else:
        _lowest(sheet, name)
        if pairs or wrong:
            sheet.unsupported("lr_scheduler_args", "Kiln's schedules take optim.schedule_options")
        else:
            sheet.no_effect("lr_scheduler_args", "empty")
    _decay(sheet, name)
    sheet.no_effect("lr_scheduler_type", "empty")
    sheet.no_effect("lr_scheduler_timescale", f"'{name}' does not read it")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _option(sheet: Sheet, argument: str, option: str, value: float, above: float | None = None) -> None:
    """One of the schedule's options, if it lies in the range that has a meaning."""
    if above is not None and value <= above:
        sheet.invalid(argument, f"must be above {above:g}")
    elif above is None and not 0 <= value <= 1:
        sheet.unsupported(argument, f"Kiln's optim.schedule_options.{option} lies from 0 to 1")
    else:
        sheet.set("optim.schedule_options", {**(sheet.setting("optim.schedule_options") or {}), option: value})
        sheet.row(argument, "mapped", f"optim.schedule_options.{option}")


def _cycles(sheet: Sheet, name: str) -> None:
    argument, cycles = "lr_scheduler_num_cycles", sheet.value("lr_scheduler_num_cycles")
    cycles = 1 if cycles is None else cycles
    if name == "cosine_with_restarts":
        _option(sheet, argument, "cycles", max(1, cycles), above=0)
    elif name in ("cosine_with_min_lr", "warmup_stable_decay") and cycles != 1:
        sheet.unsupported(argument, "half a wave each; Kiln's falls once")
    else:
        sheet.no_effect(argument, "1 is a single fall" if "min_lr" in name else f"'{name}' does not read it")


def _lowest(sheet: Sheet, name: str) -> None:
    argument, ratio = "lr_scheduler_min_lr_ratio", sheet.value("lr_scheduler_min_lr_ratio")
    if name not in ("cosine_with_min_lr", "warmup_stable_decay"):
        sheet.no_effect(argument, f"'{name}' does not read it")
    elif ratio is not None:
        _option(sheet, argument, "min_ratio", ratio)
    elif name == "cosine_with_min_lr":
        sheet.rows.pop(sheet.given["lr_scheduler"].key, None) if "lr_scheduler" in sheet.given else None
        sheet.invalid("lr_scheduler", "stops without lr_scheduler_min_lr_ratio; the recipe falls to 0")


def _decay(sheet: Sheet, name: str) -> None:
    """lr_decay_steps, a share of the run or steps, as a share of what comes after the warm-up."""
    decay = sheet.value("lr_decay_steps") or 0
    if name != "warmup_stable_decay":
        sheet.no_effect("lr_decay_steps", f"'{name}' does not read it")
        return
    steps, warmup = sheet.setting("train.steps"), sheet.setting("optim.warmup") or 0
    share = decay if isinstance(decay, float) else decay / steps if steps else None
    rise = warmup if warmup < 1 else warmup / steps if steps else None
    if not decay:
        share = rise = 0.0
    if share is None or rise is None:
        sheet.unsupported("lr_decay_steps", "Kiln wants the fall as a share of the run (optim.schedule_options.decay)")
        return
    _option(sheet, "lr_decay_steps", "decay", share / (1 - rise) if rise < 1 else 1.0)


def _warmup(sheet: Sheet, name: str, warmup: float) -> None:
    """A float is a share of the run there, an int a number of steps."""
    steps = sheet.setting("train.steps")
    sheet.set("optim.warmup", 0.0)
    if name == "constant" and warmup:
        sheet.invalid("lr_warmup_steps", "'constant' stops at a warm-up; 'constant_with_warmup' has one")
    elif (isinstance(warmup, float) and warmup > 1) or (isinstance(warmup, int) and steps and warmup > steps):
        sheet.set("optim.warmup", WHOLE_RUN)
        what = f"{warmup:g} times the run" if isinstance(warmup, float) else f"{warmup} of {steps} steps"
        sheet.unsupported("lr_warmup_steps", f"{what}: the rate never gets there; Kiln's warm-up is the whole run")
    else:
        value = WHOLE_RUN if isinstance(warmup, float) and warmup == 1 else float(warmup)
        sheet.mapped("lr_warmup_steps", "optim.warmup", value, "" if value == warmup else "1.0 is the whole run")


def _class(sheet: Sheet, path: str, warmup: float) -> None:
    """A schedule class by its name, which overrides lr_scheduler."""
    pairs, _ = parse_pairs(list(sheet.value("lr_scheduler_args") or []))
    word = path.rpartition(".")[2]
    sheet.no_effect("lr_scheduler", f"lr_scheduler_type {word} takes its place")
    cycles, ratio = sheet.value("lr_scheduler_num_cycles") or 1, sheet.value("warmup_ratio")
    if word.lower().startswith("rex"):
        sheet.mapped("lr_scheduler_type", "optim.schedule", "rex", "one cycle over the whole run")
        sheet.set("optim.schedule_options", {"min_ratio": 0.0})
        lowest, peak = pairs.get("min_lr", 0.0), pairs.get("max_lr")
        if pairs.keys() <= {"total_steps", "max_lr", "min_lr"} and _is_number(lowest) and _is_number(peak) and peak:
            _option(sheet, "lr_scheduler_args", "min_ratio", lowest / peak)
        else:
            _class_options(sheet, pairs, "Kiln's rex is one cycle over the whole run, down to 0")
    elif _is_one_cosine(sheet, word, pairs):
        sheet.mapped("lr_scheduler_type", "optim.schedule", "cosine")
        sheet.set("optim.schedule_options", {})
        _option(sheet, "lr_scheduler_args", "min_ratio", pairs.get("eta_min", 0.0) / sheet.value("learning_rate"))
    else:
        kind = "cosine_restarts" if "restart" in word.lower() and cycles > 1 else "cosine"
        kind = kind if "cosine" in word.lower() else "constant"
        sheet.set("optim.schedule", kind)
        lasts = f" ({', '.join(f'{k}={v}' for k, v in pairs.items())})" if pairs else ""
        sheet.unsupported("lr_scheduler_type", f"Kiln has no {word}{lasts}; the recipe takes '{kind}' instead")
        _class_options(sheet, pairs, f"belongs to {word}")
        if kind == "cosine_restarts":
            sheet.set("optim.schedule_options", {"cycles": cycles})
            sheet.row("lr_scheduler_num_cycles", "mapped", "optim.schedule_options.cycles")
    _leave(sheet, f"{word} does not read it", warmup)
    if ratio is not None:
        sheet.mapped("warmup_ratio", "optim.warmup", min(float(ratio), WHOLE_RUN), f"becomes an argument of {word}")


def _is_one_cosine(sheet: Sheet, word: str, pairs: dict[str, Any]) -> bool:
    """Whether torch's CosineAnnealingLR falls once, over exactly the run."""
    steps, shared = sheet.setting("train.steps"), sheet.value("learning_rate")
    plain = word == "CosineAnnealingLR" and pairs.keys() <= {"T_max", "eta_min"} and _is_number(pairs.get("eta_min", 0))
    return bool(plain and steps and shared and pairs.get("T_max") == steps)


def _class_options(sheet: Sheet, pairs: dict[str, Any], why: str) -> None:
    if pairs:
        sheet.unsupported("lr_scheduler_args", why)
    for name in pairs:
        sheet.unsupported(f"lr_scheduler_args.{name}", why)


def _leave(sheet: Sheet, why: str, warmup: float, *, keep_warmup: bool = False) -> None:
    """Rows for schedule arguments that nothing reads any more; sd-scripts stops at a warm-up that is not read."""
    if not keep_warmup:
        sheet.set("optim.warmup", 0.0)
    if warmup:
        sheet.invalid("lr_warmup_steps", f"{why.split(' does')[0]}: sd-scripts stops at a warm-up")
    for name in ARGUMENTS:
        if not sheet.told(name):
            sheet.no_effect(name, why)
