"""Whether the base knows the pictures already, as a word or as what `kiln probe` measured."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lorakiln.base.errors import UserError

Word = Literal["familiar", "novel", ""]
NOVEL = 0.12  # the probe's excess from which the base does not know how these are drawn


@dataclass(frozen=True, slots=True)
class Novelty:
    """`word` "" means that nobody has tried; `excess` is the probe's number, `spread` its standard error, if told."""

    word: Word = ""
    excess: float | None = None
    spread: float = 0.0

    @property
    def sentence(self) -> str:
        """What was measured, for the head of a recipe; '' where nothing was."""
        if self.excess is None:
            return ""
        close = ", close to the line" if abs(self.excess - NOVEL) <= 2 * self.spread else ""
        return f"'kiln probe' measured {self.excess:+.2f}: {self.word} (novel above +{NOVEL:g}{close}). [B5]"


UNKNOWN = Novelty()


def read(text: str) -> Novelty:
    """'familiar', 'novel', the probe's number, its --json line, or a file that holds it. Raises UserError otherwise."""
    if text in ("", "familiar", "novel"):
        return Novelty(text)
    told = text
    if not text.lstrip().startswith("{") and text.endswith(".json"):
        try:
            told = Path(text).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--novelty {text}: cannot be read ({error})") from None
    try:
        value = json.loads(told.strip().removeprefix("+"))
    except ValueError:
        value = None
    table: dict[str, Any] = value if isinstance(value, dict) else {"excess": value}
    excess, spread = table.get("excess"), table.get("spread", 0.0)
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in (excess, spread)):
        raise UserError(
            f"--novelty {text}: choose from familiar, novel, or give what 'kiln probe' says: its number, or its "
            "--json line, also as a .json file"
        )
    return Novelty("novel" if excess > NOVEL else "familiar", float(excess), float(spread))  # ty: ignore
