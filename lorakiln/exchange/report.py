"""What became of each key of another tool's file: the sheet that is filled in while a file is imported."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Fate = Literal["mapped", "no-effect", "unsupported", "invalid"]
FATES: dict[Fate, str] = {
    "mapped": "is a setting of the recipe now",
    "no-effect": "never changed the result in its own tool",
    "unsupported": "has an effect there that Kiln cannot give",
    "invalid": "its own tool cannot read it, or stops because of it",
}
# which fate a key has whose parts or uses have several
STRONGEST: tuple[Fate, ...] = ("mapped", "invalid", "unsupported", "no-effect")
UNSET = "CHANGE-ME"  # stands in the recipe for a path that the file does not tell


@dataclass(frozen=True, slots=True)
class Given:
    """One argument as the source gives it: the key that the report names (none where empty), its value, and `read`,
    the value as the other tool understands it (None: as if it were not there)."""

    key: str
    value: Any
    read: Any


@dataclass(frozen=True, slots=True)
class Key:
    """One row of the report. `to` names settings of the recipe ("optim.lr, optim.text_lr"), empty for none."""

    key: str
    value: Any
    fate: Fate
    to: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Import:
    """A recipe's table (complete, once checked), a row for each key of the source, and the settings still to give."""

    kind: str
    recipe: dict[str, Any]
    keys: list[Key]
    asked: list[str] = field(default_factory=list)


class Sheet:
    """The arguments of one run under their sd-scripts names, the recipe that grows from them, and the rows so far.

    `defaults` are the other tool's values for arguments that the source leaves out.
    """

    def __init__(self, given: Mapping[str, Given], defaults: Mapping[str, Any]):
        self.given, self.defaults = dict(given), defaults
        self.recipe: dict[str, Any] = {}
        self.rows: dict[str, Key] = {}

    def has(self, name: str) -> bool:
        """Whether the source gives this argument a value that its tool reads."""
        return name in self.given and self.given[name].read is not None

    def value(self, name: str) -> Any:
        """What the other tool works with: the given value, else its default, else None."""
        return self.given[name].read if self.has(name) else self.defaults.get(name)

    def set(self, to: str, value: Any) -> None:
        """Give a setting of the recipe its value, without a row."""
        table = self.recipe
        *parents, key = to.split(".")
        for parent in parents:
            table = table.setdefault(parent, {})
        table[key] = value

    def setting(self, to: str) -> Any:
        """What a setting has been given so far, or None."""
        table: Any = self.recipe
        for key in to.split("."):
            table = table.get(key) if isinstance(table, dict) else None
        return table

    def mapped(self, name: str, to: str, value: Any, why: str = "") -> None:
        """The argument becomes the setting `to` (several, with a comma between, get the same value)."""
        for one in filter(None, to.split(", ")):
            self.set(one, value)
        self.row(name, "mapped", to, why)

    def always(self, name: str, to: str, why: str) -> None:
        """The argument asks for what Kiln does anyway; `to` is the setting beside which it does."""
        self.row(name, "mapped", to, why)

    def no_effect(self, name: str, why: str) -> None:
        self.row(name, "no-effect", "", why)

    def unsupported(self, name: str, why: str) -> None:
        self.row(name, "unsupported", "", why)

    def invalid(self, name: str, why: str) -> None:
        self.row(name, "invalid", "", why)

    def row(self, name: str, fate: Fate, to: str = "", why: str = "") -> None:
        """What became of an argument; nothing where the source does not give it.

        A key that stands for several arguments keeps one row: "mapped" if any of them is, with all their settings.
        """
        given = self.given.get(name)
        if given is None or not given.key:
            return
        row = Key(given.key, given.value, fate, to, why)
        before = self.rows.get(given.key)
        self.rows[given.key] = row if before is None else _joined(before, row)

    def told(self, name: str) -> bool:
        """Whether the argument has its row already (or needs none)."""
        return name not in self.given or not self.given[name].key or self.given[name].key in self.rows

    def add(self, rows: Iterable[Key]) -> None:
        """Rows that were settled before the sheet, e.g. of keys that another key overrides."""
        for row in rows:
            before = self.rows.get(row.key)
            self.rows[row.key] = row if before is None else _joined(before, row)


def _joined(before: Key, row: Key) -> Key:
    if before.fate == row.fate == "mapped" or (before.fate == row.fate and before.why == row.why):
        settings = dict.fromkeys(filter(None, [*before.to.split(", "), *row.to.split(", ")]))
        whys = dict.fromkeys(filter(None, [before.why, row.why]))
        return replace(before, to=", ".join(settings), why="; ".join(whys))
    return min(before, row, key=lambda one: STRONGEST.index(one.fate))
