"""`kiln check`: gathers what can be known in a moment, asks every rule, and changes what is safe to change."""

import importlib.util
import os
import shutil
from collections.abc import Iterable
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import tomlkit

import lorakiln.advise.rules  # noqa: F401  fills the table of rules
from lorakiln.advise import estimate
from lorakiln.advise.base_model import BaseFacts, look_at
from lorakiln.advise.cards import CPU, Card, installed
from lorakiln.advise.evidence import cite
from lorakiln.advise.findings import RULES, Case, Finding, Machine
from lorakiln.advise.measured import refined
from lorakiln.advise.pictures import Pictures, look_at_recipe
from lorakiln.base.errors import UserError, nearest
from lorakiln.base.ledger import Entry, Ledger
from lorakiln.base.settings import Recipe

PACKAGES = {"adamw8bit": "bitsandbytes"}
RENTED = "KILN_RENTED_UNTIL"  # when the machine goes back, e.g. 2025-06-01T18:30, in its own time
SAVED = {"fp32": 4, "bf16": 2, "fp16": 2}
LATENT_BYTES = 2 * 4 * 4 / 64  # mean and log-variance in fp32, 4 channels, an eighth of each side
TOKENIZER = Path("families") / "sdxl" / "config" / "tokenizer"


def check(case: Case) -> list[Finding]:
    """The rules that apply, errors first. Raises UserError where the recipe ignores a rule that there is not."""
    ignored = set(case.recipe.ignore)
    for id in ignored - RULES.keys():
        raise UserError(f"ignore = ['{id}']: no such rule{nearest(id, RULES)}")
    found = []
    for rule in RULES.values():
        said = rule.test(case)
        if said:
            found.append(Finding(rule, said, rule.id in ignored))
    order = {"error": 0, "warning": 1, "note": 2}
    return sorted(found, key=lambda one: (order[one.rule.severity], one.rule.id))


def stops(findings: Iterable[Finding]) -> bool:
    """Whether training should not start."""
    return any(one.rule.severity == "error" and not one.ignored for one in findings)


def gather(
    recipe: Recipe,
    source: Path,
    *,
    purpose: str = "",
    card: Card | None = None,
    hours: float = 0.0,
    may_exist: bool = False,
) -> Case:
    """Look at everything the rules ask for: a second or two, no torch.

    `card`: another machine's, rather than this one's; `hours` until the rental ends (0: as KILN_RENTED_UNTIL says, if
    it does); `may_exist`: the run's folder may be there already.
    """
    base = look_at(recipe.base)
    pictures = look_at_recipe(recipe, base.resolution)
    machine, card = look_around(recipe, card, hours or hours_left())
    memory = estimate.memory(recipe, base) if base.unet else None
    time = refined(estimate.duration(recipe, base, pictures, card or CPU), recipe, base, _remembered(), card)
    name = recipe.name or source.stem
    folder = Path(recipe.runs) / name
    exists = str(folder) if folder.exists() and any(folder.iterdir()) and not may_exist else ""
    return Case(
        recipe, base, pictures, purpose or recipe.purpose, machine, memory, time, card, tokens(pictures), exists,
        disk(recipe, base, pictures, time.steps),
    )  # fmt: skip


def _remembered() -> list[Entry]:
    """The ledger's runs; none where it cannot be read, which the verbs that are about it say."""
    try:
        return Ledger(patience=1.0).entries()
    except UserError:
        return []


def hours_left() -> float:
    """Hours until the time in KILN_RENTED_UNTIL, 0 where it is not set. Raises UserError for what is no time."""
    told = os.environ.get(RENTED, "")
    if not told:
        return 0.0
    try:
        until = datetime.fromisoformat(told)
    except ValueError:
        raise UserError(f"{RENTED} = {told}: write it as 2025-06-01T18:30") from None
    left = (until - datetime.now(until.tzinfo)).total_seconds() / 3600
    return max(left, 0.01)  # past: whatever takes longer than nothing outlasts it


def look_around(recipe: Recipe, card: Card | None, hours: float) -> tuple[Machine, Card | None]:
    """This machine's card (unless another is named), free disk, and missing packages."""
    space = _free_gib(Path(recipe.runs))
    gone = missing_packages(recipe)
    if card:
        return Machine(card.vram, card.bf16, True, space, gone, hours), card
    here = installed() if recipe.device != "cpu" else []
    if not here:
        return Machine(None, True, False, space, gone, hours), None
    first = here[0]
    known = first.known or Card(first.name, first.vram, 30.0, first.capability)
    return Machine(first.vram, first.capability >= (8, 0), True, space, gone, hours), known


def missing_packages(recipe: Recipe) -> tuple[str, ...]:
    """Packages that the recipe's optimizer needs and that are not installed."""
    name = recipe.optim.name
    wanted = PACKAGES.get(name) or (name.partition(".")[0] if "." in name else "")
    return (wanted,) if wanted and importlib.util.find_spec(wanted) is None else ()


def disk(recipe: Recipe, base: BaseFacts, pictures: Pictures, steps: int) -> float:
    """GiB that the run writes: checkpoints, the state of the last, and latents where they go to the disk."""
    if not base.unet:
        return 0.0
    units = estimate.units_of(recipe, base, None)
    numbers = sum(estimate.adapter_weights(recipe, layer) for layer in estimate.adapted(recipe, base, units))
    save, train = recipe.save, recipe.train
    made = (train.epochs // save.epochs if save.epochs else 0) + (steps // save.steps if save.steps else 0)
    kept = min(made, save.keep) if save.keep else made
    total = (kept + 1) * numbers * SAVED[save.dtype] + numbers * (4 + estimate.state_bytes(recipe))
    if recipe.cache.latents == "disk":
        total += sum(one.crop.target.width * one.crop.target.height * LATENT_BYTES for one in pictures.shown)
    return total / estimate.GIB


def _free_gib(folder: Path) -> float | None:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free / estimate.GIB
    except OSError:
        return None


def tokens(pictures: Pictures) -> tuple[int, ...] | None:
    """Tokens of every caption's first line; None where the tokenizer cannot be had."""
    texts = [text.splitlines()[0] for text in pictures.written()]
    try:
        encoder = _tokenizer()
    except ImportError:
        return None
    return tuple(len(one.ids) for one in encoder.encode_batch(texts))


@cache
def _tokenizer() -> Any:
    """CLIP's byte-pair encoder from the shipped vocabulary, through `tokenizers` alone."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    folder = Path(__file__).parent.parent / TOKENIZER
    encoder = Tokenizer(
        models.BPE.from_file(
            str(folder / "vocab.json"), str(folder / "merges.txt"), continuing_subword_prefix="",
            end_of_word_suffix="</w>", unk_token="<|endoftext|>",
        )
    )  # fmt: skip
    encoder.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    encoder.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, behavior="removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return encoder


def apply_fixes(text: str, findings: Iterable[Finding]) -> tuple[str, dict[str, Any]]:
    """A recipe's TOML with the safe fixes made, comments kept; and the settings changed."""
    document = tomlkit.parse(text)
    changed: dict[str, Any] = {}
    for finding in findings:
        if finding.rule.safe and not finding.ignored:
            for path, value in finding.said.fix.items():
                *parents, key = path.split(".")
                table: Any = document
                for name in parents:
                    table = table[int(name)] if name.isdigit() else table.setdefault(name, tomlkit.table())
                table[key] = value
                changed[path] = value
    return tomlkit.dumps(document), changed


def row(finding: Finding) -> dict[str, Any]:
    """A finding for programs."""
    rule = finding.rule
    return {
        "id": rule.id, "severity": rule.severity, "title": rule.title, "text": finding.said.text,
        "evidence": list(rule.evidence), "fix": dict(finding.said.fix), "safe": rule.safe and bool(finding.said.fix),
        "ignored": finding.ignored,
    }  # fmt: skip


__all__ = ["apply_fixes", "check", "cite", "gather", "row", "stops"]
