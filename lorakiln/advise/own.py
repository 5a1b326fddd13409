"""What the user's own ledger says of runs like the one asked for: it comes before what others wrote."""

import math
from collections.abc import Sequence
from pathlib import Path

from lorakiln.advise.base_model import BaseFacts
from lorakiln.advise.evidence import OWN, Evidence, asked
from lorakiln.advise.profiles import recognise
from lorakiln.base.ledger import Entry
from lorakiln.base.where import settings_of

MOST = 3  # runs that are cited


def cited(entries: Sequence[Entry], base: BaseFacts, purpose: str, count: int) -> tuple[str, ...]:
    """A sentence for each of the likest runs that were judged or noted, on a base of the same family.

    Own runs come before imported ones, runs of the same `purpose` before those that told none, then those with about
    as many pictures as `count`. Runs for another purpose are left out.
    """
    known = [one for one in entries if (one.verdict or one.notes) and one.purpose in ("", purpose)]
    known = [one for one in known if same_family(one.base, base)]
    known.sort(key=lambda one: (bool(one.origin), not one.purpose, abs(math.log((one.pictures or 1) / max(count, 1)))))
    return tuple(_sentence(one) for one in known[:MOST])


def evidence_of(entries: Sequence[Entry], word: str) -> list[Evidence]:
    """The latest runs that were judged or noted and that say something on a topic, own ones first, as evidence.

    They do where they were for that purpose, by that optimizer or kind of adapter, or where the topic is a setting.
    "": all of them speak.
    """
    known = [one for one in entries if (one.verdict or one.notes) and _speaks(one, word)]
    known.sort(key=lambda one: bool(one.origin))
    return [Evidence(f"{OWN}{n}", OWN, _sentence(one), "", "", ()) for n, one in enumerate(known[:MOST], 1)]


def _speaks(one: Entry, word: str) -> bool:
    settings = settings_of(one)
    keys = {*settings, *(key.rpartition(".")[2] for key in settings)}
    values = {one.purpose, str(settings.get("optim.name", "")), str(settings.get("adapter.kind", ""))}
    return any(topic in keys or topic in values for topic in asked(word)) if word else True


def same_family(name: str, base: BaseFacts) -> bool:
    """Whether a run's base is of the same release as `base`; of bases that nobody knows, the same file name."""
    if Path(name).name == Path(base.base).name:
        return True
    profile = recognise(name, {})
    if profile or base.profile:
        return bool(profile and base.profile and profile.name == base.profile.name)
    return False


def _sentence(one: Entry) -> str:
    optim, adapter = one.recipe.get("optim", {}), one.recipe.get("adapter", {})
    what = [f"{one.pictures} pictures"] if one.pictures else []
    what += [f"{optim['name']} at {optim['lr']:g}"] if {"name", "lr"} <= optim.keys() else []
    what += [f"rank {adapter['rank']}"] if "rank" in adapter else []
    what += [f"{one.steps:,} steps"] if one.steps else []
    whose = f"A run of '{one.origin}', '{one.name}'" if one.origin else f"Your run '{one.name}'"
    kind = f" for a {one.purpose}" if one.purpose else ""
    notes = " ".join(f'"{line}"' for line in one.notes.splitlines())
    outcome = "; ".join(part for part in (one.verdict or "not judged", notes) if part)
    mark = "[shared]" if one.origin else "[yours]"
    about = f" ({', '.join(what)})" if what else ""
    return f"{whose}{kind}{about}: {outcome}. {mark}"
