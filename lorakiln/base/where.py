"""Conditions on runs, as people write them: 'optim.name=came', 'steps>600', 'verdict!=baked'."""

import json
import re
from collections.abc import Callable
from typing import Any

from lorakiln.base.errors import UserError, nearest
from lorakiln.base.ledger import Entry

FACTS = ("name", "status", "verdict", "base", "purpose", "dataset", "pictures", "steps", "loss", "peak_memory", "price",
         "cost", "time", "device", "started", "finished", "host", "origin", "notes")  # fmt: skip
_FORM = re.compile(r"\s*([\w.]+)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*")
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
}  # fmt: skip


def settings_of(one: Entry) -> dict[str, Any]:
    """`section.key` -> value of its recipe; `dataset.N.key` for its datasets."""
    flat: dict[str, Any] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict) and value and not path.endswith(("options", "rates")):
            for key, inner in value.items():
                walk(inner, f"{path}.{key}" if path else key)
        elif path == "dataset" and isinstance(value, list):
            for number, table in enumerate(value):
                walk(table, f"dataset.{number}")
        else:
            flat[path] = value

    walk(one.recipe, "")
    return flat


def condition(text: str) -> Callable[[Entry], bool]:
    """The test that `text` describes: KEY OP VALUE, KEY being a setting or one of FACTS, OP one of = != < <= > >=.

    `=` compares numbers as numbers, and text without regard to case. A run without the value never matches, but `!=`.
    Raises UserError for what has no such form; the returned test never raises.
    """
    match = _FORM.fullmatch(text)
    if not match:
        raise UserError(f"--where {text}: write KEY=VALUE, as in optim.name=came, or with != < <= > >=")
    key, sign, wanted = match.groups()
    if sign in _ORDER and _number(wanted) is None and key not in ("started", "finished"):
        raise UserError(f"--where {text}: {sign} needs a number")

    def test(one: Entry) -> bool:
        found = getattr(one, key) if key in FACTS else settings_of(one).get(key)
        if found is None:
            return sign == "!="
        if sign in _ORDER:
            a, b = (str(found), wanted) if key in ("started", "finished") else (_number(found), _number(wanted))
            return a is not None and _ORDER[sign](a, b)
        return _same(found, wanted) == (sign == "=")

    return test


def known_keys(entries: list[Entry]) -> set[str]:
    """Everything that a condition on these runs may name."""
    return {*FACTS, *(key for one in entries for key in settings_of(one))}


def check(texts: list[str], entries: list[Entry]) -> None:
    """Raise UserError for a condition on something that none of the runs has."""
    keys = known_keys(entries)
    for text in texts:
        match = _FORM.fullmatch(text)
        if match and match[1] not in keys:
            raise UserError(f"--where {text}: no run has '{match[1]}'{nearest(match[1], keys)}")


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _same(found: Any, wanted: str) -> bool:
    a, b = _number(found), _number(wanted)
    if a is not None and b is not None:
        return a == b
    text = found if isinstance(found, str) else json.dumps(found)
    return text.casefold() == wanted.casefold()
