"""What a state rests on besides the recipe: pictures, processes, number format, base. Resuming needs it as it was."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lorakiln.base.errors import UserError


@dataclass(frozen=True, slots=True)
class Basis:
    """`pictures` are (name, digest of all that is learned from it) in their order; `base` is the weights' digest."""

    pictures: tuple[tuple[str, str], ...]
    processes: int
    precision: str
    base: str

    def table(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return asdict(self) | {"pictures": [list(row) for row in self.pictures]}

    def refuse_other(self, saved: Mapping[str, Any]) -> None:
        """Raise UserError, naming what changed, unless a state with this table continues on this basis."""
        changes = []
        if saved["pictures"] != self.table()["pictures"]:
            changes += _changed(dict(saved["pictures"]), dict(self.pictures))
        if saved["processes"] != self.processes:
            changes.append(f"{saved['processes']} processes trained it, now there are {self.processes}")
        if saved["precision"] != self.precision:
            was = saved["precision"]
            changes.append(f"its precision was {was}, here it is {self.precision} (train.precision = '{was}' keeps it)")
        if saved["base"] != self.base:
            changes.append("the base's weights are others")
        if changes:
            raise UserError(
                f"--resume: {'; '.join(changes)}: the saved steps would not be repeated; "
                "put it back as it was, or start anew with --overwrite"
            )


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    both = [name for name in before if name in now and before[name] != now[name]]
    rows = {
        "added": [name for name in now if name not in before],
        "gone": [name for name in before if name not in now],
        "changed (picture, caption, mask or repeats)": both,
    }
    if not any(rows.values()):
        yield "the order of the pictures changed"
    yield from (f"{_few(names)} {what}" for what, names in rows.items() if names)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
