"""What is known of training a LoRA: claims with their sources, and what checking them found. Rules cite these rows."""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from lorakiln.advise import rows
from lorakiln.base.errors import UserError, nearest

SOURCES = {
    "R": "SDXL/Pony technical report (Pony fast training guide and its preset t5clrs.json)",
    "D": "DuskFall's Opinionated Guide to All LoRA Training, 2025 update",
    "P": "read in, or run with, the trainers' own code (sd-scripts, kohya_ss, LyCORIS)",
    "C": "counted on SDXL's real shapes",
    "M": "follows from the method's definition",
    "K": "measured with Kiln itself",
    "L": "your own ledger: runs that you judged or noted, and others' that you imported",
}
OWN = "L"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One claim. `source` is a letter of SOURCES, `when` says where the claim holds, `checked` what was found since.

    Where `checked` contradicts the claim, Kiln follows `checked` (`overruled`). `topics` are the settings and words
    that `kiln why` finds it by.
    """

    id: str
    source: str
    claim: str
    when: str
    checked: str
    topics: tuple[str, ...]
    overruled: bool = False


@cache
def evidence() -> dict[str, Evidence]:
    """Every row by its id."""
    found: dict[str, Evidence] = {}
    for id, source, claim, when, checked, topics, *overruled in rows.ROWS:
        assert id not in found and source in SOURCES, id
        found[id] = Evidence(id, source, claim, when, checked, tuple(topics.split()), bool(overruled))
    return found


def cite(ids: Iterable[str]) -> str:
    """'[T6, T9]' for a comment."""
    return f"[{', '.join(ids)}]"


def about(word: str) -> list[Evidence]:
    """The rows on a topic: an id, a setting ("optim.lr", "learning_rate", "lr") or a word ("style").

    Raises UserError with the nearest topic where nothing is known.
    """
    table = evidence()
    if word.upper() in table:
        return [table[word.upper()]]
    wanted = asked(word)
    found = [row for row in table.values() if wanted & set(row.topics)]
    if not found:
        topics = {topic for row in table.values() for topic in row.topics} | set(rows.SYNONYMS)
        raise UserError(f"nothing is known about '{word}'{nearest(word, topics)}")
    return found


def asked(word: str) -> set[str]:
    """The topics that a word means: itself, the setting's own name, and what other tools call it here."""
    low = word.lower()
    return {low, rows.SYNONYMS.get(low, low.rpartition(".")[2])}


def lines(row: Evidence, width: int = 80) -> list[str]:
    """One row as text of at most `width` columns."""
    out = textwrap.wrap(row.claim, width, initial_indent=f"{row.id:<5}", subsequent_indent="     ")
    for label, text in (("when", row.when), ("checked", row.checked)):
        if text:
            indent = f"     {label}: "
            out += textwrap.wrap(text, width, initial_indent=indent, subsequent_indent="       ")
    if row.overruled:
        out.append("     Kiln follows what was checked, not the claim.")
    return [*out, f"     source: {row.source}"]


def page() -> str:
    """docs/evidence.md."""
    text = ["# Evidence", "", "<!-- Made by `make docs` from the code; change it there. -->", ""]
    text += [
        "Every piece of advice and every rule of `kiln check` cites rows of this table; `kiln why TOPIC` shows them in "
        "the terminal. Where a check contradicts a claim, Kiln follows the check and says so here.",
        "",
        "| source | what it is |",
        "|---|---|",
        *(f"| {letter} | {meaning} |" for letter, meaning in SOURCES.items()),
    ]
    for heading, letters in rows.HEADINGS.items():
        text += [
            "",
            f"## {heading}",
            "",
            "| id | source | claim | when | what checking found |",
            "|---|---|---|---|---|",
        ]
        for row in evidence().values():
            if row.id[0] in letters:
                checked = f"**overruled:** {row.checked}" if row.overruled else row.checked
                cells = [row.id, row.source, row.claim, row.when, checked]
                text.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(text) + "\n"
