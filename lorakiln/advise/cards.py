"""Graphics cards: their memory and rated speed in half precision, and which one is in this machine."""

import re
import shutil
import subprocess
from dataclasses import dataclass

from lorakiln.base.errors import UserError, nearest


@dataclass(frozen=True, slots=True)
class Card:
    """`tflops`: bf16 or fp16 with fp32 sums, dense, as rated (reached by large matrix products at best)."""

    name: str
    vram: float  # GiB
    tflops: float
    capability: tuple[int, int]

    @property
    def bf16(self) -> bool:
        return self.capability >= (8, 0)


CPU = Card("cpu", 0.0, 0.2, (0, 0))
_TABLE = """
rtx2060 6 26 7.5 | rtx2070 8 30 7.5 | rtx2080 8 40 7.5 | rtx2080ti 11 54 7.5 | t4 15 50 7.5 | v100 16 100 7.0
rtx3060 12 25 8.6 | rtx3060ti 8 32 8.6 | rtx3070 8 40 8.6 | rtx3080 10 60 8.6 | rtx3080ti 12 68 8.6 | rtx3090 24 71 8.6
rtx3090ti 24 80 8.6 | a4000 16 38 8.6 | a5000 24 55 8.6 | a6000 48 77 8.6 | a10 24 62 8.6 | a40 48 75 8.6
rtx4060 8 30 8.9 | rtx4060ti 16 44 8.9 | rtx4070 12 58 8.9 | rtx4070ti 12 80 8.9 | rtx4080 16 97 8.9
rtx4090 24 165 8.9 | l4 23 60 8.9 | l40 45 180 8.9 | l40s 45 183 8.9 | rtx6000ada 48 182 8.9
rtx5060ti 16 47 12.0 | rtx5070 12 61 12.0 | rtx5070ti 16 88 12.0 | rtx5080 16 112 12.0 | rtx5090 32 209 12.0
a100 40 280 8.0 | a100-80 80 280 8.0 | h100 80 660 9.0 | h200 141 790 9.0 | b200 180 1600 10.0
"""
CARDS: dict[str, Card] = {}
for _row in re.split(r"[|\n]", _TABLE.strip()):
    _name, _vram, _rate, _capability = _row.split()
    _major, _minor = _capability.split(".")
    CARDS[_name] = Card(_name, float(_vram), float(_rate), (int(_major), int(_minor)))


def card(name: str) -> Card:
    """A card by name, written as one likes: "RTX 4090", "rtx4090"."""
    word = re.sub(r"nvidia|geforce|tesla|[ _-]", "", name.lower())
    table = {key.replace("-", ""): one for key, one in CARDS.items()}
    if word in table:
        return table[word]
    if f"rtx{word}" in table:
        return table[f"rtx{word}"]
    raise UserError(f"--gpu {name}: not in the table of cards{nearest(word, CARDS)}")


@dataclass(frozen=True, slots=True)
class Installed:
    """A card of this machine as its driver tells it; `known` is its row in the table, if it has one."""

    name: str
    vram: float
    free: float
    capability: tuple[int, int]
    driver: str
    known: Card | None


def installed(timeout: float = 1.0) -> list[Installed]:
    """The NVIDIA cards of this machine, asked of the driver's own tool; empty where there is none."""
    tool = shutil.which("nvidia-smi")
    if not tool:
        return []
    query = "--query-gpu=name,memory.total,memory.free,compute_cap,driver_version"
    try:
        done = subprocess.run(
            [tool, query, "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=timeout, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [parse_line(line) for line in done.stdout.splitlines() if line.count(",") >= 4]


def parse_line(line: str) -> Installed:
    """One line of nvidia-smi's answer: name, MiB in all, MiB free, compute capability, driver."""
    name, total, free, capability, driver = (part.strip() for part in line.rsplit(",", 4))
    major, _, minor = capability.partition(".")
    try:
        known = card(name)
    except UserError:
        known = None
    pair = (int(major), int(minor or 0)) if major.isdigit() else (0, 0)
    return Installed(name, float(total) / 1024, float(free) / 1024, pair, driver, known)
