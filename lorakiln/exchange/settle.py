"""The last check of an import: what Kiln's own settings refuse becomes a row and leaves the recipe."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from lorakiln.base.recipe import parse
from lorakiln.base.settings import Recipe
from lorakiln.exchange.report import Fate, Sheet

# settings whose argument sd-scripts trains with below Kiln's range too; any other too small number stops it
RUNS_BELOW = {
    "loss.noise_offset", "loss.min_snr_gamma", "loss.input_perturbation", "loss.multires_discount", "loss.huber_c",
    "adapter.alpha", "adapter.conv_alpha", "optim.loraplus", "optim.rates", "adapter.ranks", "seed",
}  # fmt: skip
COUNTED = ("train.steps", "train.epochs")
LIMITS = {"greater_than_equal": ("ge", "starts at"), "less_than_equal": ("le", "ends at")}
ROUNDS = 50  # each takes at least one setting out


def settle(sheet: Sheet, where: str) -> Recipe:
    """The recipe of a filled-in sheet; every setting with a value that Kiln cannot take is left at Kiln's own.

    The row of the argument behind it says so. Raises UserError for a fault that no argument is the cause of.
    """
    for _ in range(ROUNDS):
        try:
            return Recipe.model_validate(sheet.recipe)
        except ValidationError as error:
            settings = {_setting(one["loc"]): one for one in reversed(error.errors())}
            refused = [_refuse(sheet, setting, one) for setting, one in settings.items()]
            if not all(refused):
                break
    return parse(sheet.recipe, where)


def _setting(place: tuple[Any, ...]) -> tuple[Any, ...]:
    """Where the faulty setting stands: a list's or table's part is taken as the whole setting."""
    return place[: 3 if place[0] == "dataset" else 2]


def _refuse(sheet: Sheet, place: tuple[Any, ...], error: Mapping[str, Any]) -> bool:
    """Take the setting out of the recipe and say so; False where it is not there."""
    table: Any = sheet.recipe
    try:
        for part in place[:-1]:
            table = table[part]
        del table[place[-1]]
    except (KeyError, IndexError, TypeError):
        return False
    setting = ".".join(map(str, place))
    fate, why = _verdict(setting, error)
    for key, row in list(sheet.rows.items()):
        names = row.to.split(", ")
        if setting not in names:
            continue
        left = [name for name in names if name != setting]
        if left and setting not in COUNTED:
            sheet.rows[key] = replace(row, to=", ".join(left), why="; ".join(filter(None, [row.why, why])))
        else:
            sheet.rows[key] = replace(row, fate=fate, to="", why=why)
    return True


def _verdict(setting: str, error: Mapping[str, Any]) -> tuple[Fate, str]:
    kind, context = error["type"], error.get("ctx", {})
    if kind in LIMITS:
        name, word = LIMITS[kind]
        stops = kind == "greater_than_equal" and setting not in RUNS_BELOW
        if stops:
            return "invalid", f"must be at least {context[name]:g}"
        return "unsupported", f"Kiln's {setting} {word} {context[name]:g}; its own default is taken"
    if kind == "literal_error":
        return "invalid", f"must be {context['expected']}"
    return "invalid", f"{setting}: {error['msg'][0].lower()}{error['msg'][1:]}"
