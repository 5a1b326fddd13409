"""`kiln settings`: every setting of a recipe with its type, default, range and meaning."""

import json
import types
import typing
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from lorakiln.base.errors import UserError, nearest
from lorakiln.base.settings import sections


def add_verbs(app: typer.Typer) -> None:
    app.command("settings")(show)


def show(
    name: str = typer.Argument("", help="Only this section or setting, e.g. optim or optim.lr."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Explain the settings of a recipe."""
    rows = [row for row in settings_table() if not name or row["name"] == name or row["name"].startswith(f"{name}.")]
    if not rows:
        raise UserError(f"no setting or section '{name}'{nearest(name, [row['name'] for row in settings_table()])}")
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("setting", "default", "allowed", "what it does"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(row["name"], row["default"], row["allowed"], row["help"])
    Console().print(table)


def settings_table() -> list[dict[str, str]]:
    """One row a setting: name, default, allowed, help, effect; all text."""
    rows = []
    for section, model in sections():
        for key, field in model.model_fields.items():
            if not isinstance(field.json_schema_extra, dict):
                continue  # a section, not a setting
            rows.append(
                {
                    "name": f"{section}.{key}".lstrip("."),
                    "default": _default(field),
                    "allowed": _allowed(field),
                    "help": field.description or "",
                    "effect": str(field.json_schema_extra["effect"]),
                }
            )
    return rows


def _default(field: Any) -> str:
    if field.is_required():
        return "(must be given)"
    value = field.get_default(call_default_factory=True)
    return "(unset)" if value is None else json.dumps(value)


def _allowed(field: Any) -> str:
    kind = field.annotation
    if isinstance(kind, types.UnionType):
        kind = next(one for one in typing.get_args(kind) if one is not type(None))
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(map(str, typing.get_args(kind)))
    words = {bool: "true, false", int: "whole number", float: "number", str: "text", dict: "table", list: "list"}
    low = next((m.ge for m in field.metadata if getattr(m, "ge", None) is not None), None)
    high = next((m.le for m in field.metadata if getattr(m, "le", None) is not None), None)
    text = words.get(typing.get_origin(kind) or kind, "list")
    if low is not None and high is not None:
        return f"{text}, {low:g} to {high:g}"
    return text if low is None else f"{text}, at least {low:g}"
