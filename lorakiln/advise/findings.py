"""What a rule of `kiln check` sees and says: the case, the finding, and the table of rules."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lorakiln.advise.base_model import BaseFacts
from lorakiln.advise.cards import Card
from lorakiln.advise.estimate import Memory, Time
from lorakiln.advise.pictures import Pictures
from lorakiln.base.settings import Recipe

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine has. `vram` in GiB (None: no card is known), `disk_free` and `needs_disk` in GiB."""

    vram: float | None = None
    bf16: bool = True
    cuda: bool = False
    disk_free: float | None = None
    missing: tuple[str, ...] = ()  # packages that the recipe needs and that are not installed
    hours: float = 0.0  # until the rental ends; 0: no clock


@dataclass(frozen=True, slots=True)
class Case:
    """Everything that rules look at, gathered once. A part that could not be looked at is None."""

    recipe: Recipe
    base: BaseFacts
    pictures: Pictures | None = None
    purpose: str = ""
    machine: Machine = field(default_factory=Machine)
    memory: Memory | None = None
    time: Time | None = None
    card: Card | None = None
    tokens: tuple[int, ...] | None = None  # of each caption, where a tokenizer was at hand
    output_exists: str = ""
    needs_disk: float = 0.0

    @property
    def count(self) -> int:
        return self.pictures.count if self.pictures else 0

    @property
    def tiny(self) -> bool:
        """Whether the base is one of Kiln's own, for which SDXL's numbers say nothing."""
        return bool(self.base.profile and self.base.profile.name.startswith("starter"))

    @property
    def steps(self) -> int:
        return self.time.steps if self.time else 0


@dataclass(frozen=True, slots=True)
class Said:
    """What a rule has to say: what is wrong and what follows, and the settings that would cure it."""

    text: str
    fix: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rule:
    """`safe`: its fix changes nothing that the user is likely to have meant."""

    id: str
    severity: Severity
    title: str
    evidence: tuple[str, ...]
    safe: bool
    test: Callable[[Case], Said | None]


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that applies to a case."""

    rule: Rule
    said: Said
    ignored: bool = False


RULES: dict[str, Rule] = {}


def rule(id: str, severity: Severity, title: str, *evidence: str, safe: bool = False) -> Callable:
    """Put a function of a Case into the table of rules."""

    def add(test: Callable[[Case], Said | None]) -> Callable[[Case], Said | None]:
        assert id not in RULES and evidence, id
        RULES[id] = Rule(id, severity, title, evidence, safe, test)
        return test

    return add


def page() -> str:
    """docs/rules.md."""
    import lorakiln.advise.rules  # noqa: F401  fills the table

    text = ["# Rules of `kiln check`", "", "<!-- Made by `make docs` from the code; change it there. -->", ""]
    text += [
        "An error stops `kiln train`; a warning or a note does not. A rule is switched off for a recipe by "
        '`ignore = ["K001"]`. `kiln check --fix` makes the changes marked safe. The last column names rows of '
        "[evidence.md](evidence.md).",
        "",
        "| id | severity | what it looks for | fix | evidence |",
        "|---|---|---|---|---|",
    ]
    for one in sorted(RULES.values(), key=lambda one: one.id):
        fix = "safe" if one.safe else "by hand"
        text.append(f"| {one.id} | {one.severity} | {one.title} | {fix} | {', '.join(one.evidence)} |")
    return "\n".join(text) + "\n"
