"""Recipes as TOML: read with errors in the user's words, written back whole with each setting's help beside it."""

import difflib
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import tomlkit
from pydantic import ValidationError

from lorakiln.base.errors import UserError, nearest
from lorakiln.base.settings import Recipe, Section, sections
from lorakiln.base.settings.adapter import ALIASES


def read(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """The recipe in a TOML file, with `section.key=value` changes laid over it.

    Raises UserError naming the file, the setting, its value and what is allowed. Paths stay as written.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such recipe") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: not a readable TOML recipe ({error})") from None
    for change in changes:
        apply_change(table, change)
    return parse(table, str(path))


def parse(table: dict[str, Any], where: str) -> Recipe:
    """The recipe in a table; `where` opens each error."""
    try:
        recipe = Recipe.model_validate(table)
    except ValidationError as error:
        # a misspelt setting first: it is also why another one is missing
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        raise UserError(f"{where}: {_explain(first)}") from None
    if not recipe.dataset:
        raise UserError(f"{where}: dataset is empty; give at least one [[dataset]] table with a folder")
    return recipe


def write(recipe: Recipe) -> str:
    """The complete recipe as TOML, defaults included, each setting with its help as a comment."""
    document = tomlkit.document()
    _fill(document, recipe, skip=(*dict(sections()), "dataset"))
    for name, _ in list(sections())[1:-1]:
        document.add(name, _fill(tomlkit.table(), getattr(recipe, name)))
    datasets = tomlkit.aot()
    for dataset in recipe.dataset:
        datasets.append(_fill(tomlkit.table(), dataset))
    document.add("dataset", datasets)
    return tomlkit.dumps(document)


def differences(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """`section.key` -> (old, new) for every setting that differs; datasets are `dataset.N.key`."""
    before, after = flatten(old), flatten(new)
    keys = [*before, *(key for key in after if key not in before)]
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def flatten(recipe: Recipe) -> dict[str, Any]:
    """`section.key` -> value for every setting of the recipe."""
    flat: dict[str, Any] = {}
    for key, value in recipe.model_dump().items():
        if key == "dataset":
            flat |= {f"dataset.{n}.{k}": v for n, table in enumerate(value) for k, v in table.items()}
        elif isinstance(getattr(recipe, key), Section):
            flat |= {f"{key}.{k}": v for k, v in value.items()}
        else:
            flat[key] = value
    return flat


def portable(table: dict[str, Any]) -> dict[str, Any]:
    """A recipe's table with each path reduced to its last name, so that it says what was used and not where it lay.

    Where a run lay, and on what it ran, is no part of what it learned. What the table lacks stays away.
    """
    kept = _named(table, "base", "vae", "init") | {
        key: value for key, value in (("runs", "runs"), ("device", "auto")) if key in table
    }
    if isinstance(table.get("sample"), dict):
        kept["sample"] = _named(table["sample"], "file")
    if isinstance(table.get("cache"), dict):
        kept["cache"] = table["cache"] | {"folder": ""}
    if isinstance(table.get("dataset"), list):
        kept["dataset"] = [_named(one, "folder", "masks") for one in table["dataset"]]
    return kept


def _named(table: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The table with the paths under `keys` reduced to their last names."""
    paths = {key: table[key] for key in keys if isinstance(table.get(key), str)}
    return table | {key: re.split(r"[/\\]", path.rstrip("/\\"))[-1] for key, path in paths.items()}


def _fill(table: Any, section: Section, skip: Sequence[str] = ()) -> Any:
    values = section.model_dump()
    for key, field in type(section).model_fields.items():
        if key in skip:
            continue
        if values[key] is None:  # TOML has no null: the unset setting is shown as a comment
            table.add(tomlkit.comment(f"{key} =   # {field.description}"))
            continue
        item = _inline(values[key])
        item.comment(field.description or "")
        table.add(key, item)
    return table


def _inline(value: Any) -> Any:
    """A TOML value on one line; tables in it are inline tables without their unset keys."""
    if isinstance(value, dict):
        table = tomlkit.inline_table()
        table.update({key: _inline(inner) for key, inner in value.items() if inner is not None})
        return table
    if isinstance(value, list):
        array = tomlkit.array()
        for inner in value:
            array.append(_inline(inner))
        return array
    return tomlkit.item(value)


def apply_change(table: dict[str, Any], change: str) -> None:
    """Lay `optim.lr=1e-4` (or `dataset.0.repeats=2`) over a TOML table; a bare word is a string."""
    path, found, text = change.partition("=")
    if not found:
        raise UserError(f"--set {change}: write it as section.key=value")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *parents, key = path.strip().split(".")
    for name in parents:
        try:
            table = table[int(name)] if isinstance(table, list) else table.setdefault(name, {})
        except (IndexError, ValueError):
            raise UserError(f"--set {change}: there is no '{name}' in this recipe's list") from None
        if not isinstance(table, dict | list):
            raise UserError(f"--set {change}: '{name}' is not a table")
    if isinstance(table, list):
        raise UserError(f"--set {change}: name one of the datasets, as in dataset.0.{key}")
    table[key] = value


def _explain(error: Any) -> str:
    """One pydantic error in the user's words: setting, value, what is allowed."""
    where, kind, context = error["loc"], error["type"], error.get("ctx", {})
    name = ".".join(map(str, where))
    if kind == "extra_forbidden":
        return f"unknown setting '{name}'{_nearest_setting(where)}"
    if kind == "missing":
        return f"{name} is missing; {_help(where)}"
    allowed = {
        "greater_than_equal": lambda: f"must be at least {context['ge']:g}",
        "less_than_equal": lambda: f"must be at most {context['le']:g}",
        "literal_error": lambda: _choices(error["input"], context["expected"]),
        "finite_number": lambda: "must be a finite number",
        "choice": lambda: error["msg"],
    }.get(kind, lambda: error["msg"][0].lower() + error["msg"][1:])()
    return f"{name} = {_shown(error['input'])}: {allowed}"


def _nearest_setting(where: Sequence[Any]) -> str:
    """What another tool's key is here, else the same key in another table, else the nearest of this table or of all."""
    key, here = str(where[-1]), _section(where).model_fields
    if key in ALIASES:
        return f"; did you mean '{ALIASES[key]}'{'' if where[0] == 'adapter' else ' in [adapter]'}?"
    dotted = {f"{table}.{name}".lstrip("."): name for table, section in sections() for name in section.model_fields}
    elsewhere = [full for full, name in dotted.items() if name == key]
    if elsewhere:
        return f"; did you mean '{elsewhere[0]}'?"
    if difflib.get_close_matches(key, here, n=1, cutoff=0.6):
        return nearest(key, here)
    close = difflib.get_close_matches(key, dotted.values(), n=1, cutoff=0.7)
    return f"; did you mean '{next(f for f, n in dotted.items() if n == close[0])}'?" if close else nearest(key, here)


def _section(where: Sequence[Any]) -> type[Section]:
    """The model of the table that a setting's path lies in, lists and nested tables followed."""
    section: type[Section] = Recipe
    for name in where[:-1]:
        if isinstance(name, str):
            kind = section.model_fields[name].annotation
            section = next(one for one in (*get_args(kind), kind) if isinstance(one, type) and issubclass(one, Section))
    return section


def _choices(value: Any, expected: str) -> str:
    choices = [choice.strip("' ") for choice in expected.replace(" or ", ",").split(",")]
    return f"unknown{nearest(str(value), choices)}" + (
        "" if not difflib.get_close_matches(str(value), choices) else f" (of {', '.join(choices)})"
    )


def _help(where: Sequence[Any]) -> str:
    return _section(where).model_fields[str(where[-1])].description or ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
