"""The recipes of recipes/, one for each training row of docs/evidence.md, made from `advise/methods.py`."""

from dataclasses import dataclass

from lorakiln.advise.advice import Advice, in_order
from lorakiln.advise.methods import METHODS, Choice
from lorakiln.advise.profiles import PROFILES

STYLE, MASCOT = "examples/twemoji", "examples/mascot"
# what the base can draw and the pictures do not show: what is learned is the style, or the character
PROMPTS = {
    STYLE: ["twmj_style, score_9, rabbit face, animal, large, white background",
            "twmj_style, score_9, castle, travel, large, yellow background"],
    MASCOT: ["potti, score_9, waving, smile, green background, large",
             "potti, score_9, sitting, open smile, white background, small"],
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class File:
    """One recipe file: the method that it is, and the pictures that ship with Kiln which it trains on as it stands."""

    row: str
    method: str
    folder: str

    @property
    def name(self) -> str:
        return f"{self.row.lower()}-{self.method}.toml"


FILES = (
    File("T1", "prodigy-fast", MASCOT),
    File("T2", "prodigy-rich", STYLE),
    File("T3", "adafactor", STYLE),
    File("T4", "prodigy-long", STYLE),
    File("T5", "adamw8bit-baseline", STYLE),
    File("T6", "came-locon-style", STYLE),
    File("T6", "came-dora-style", STYLE),
    File("T7", "came-character", MASCOT),
    File("T8", "came-style-small", STYLE),
    File("T9", "came-locon-style-630", STYLE),
    File("T9", "came-dora-style-630", STYLE),
    File("T10", "adamw-style-large", STYLE),
)


def page(file: File) -> str:
    """The recipe as TOML, a comment above each value saying why."""
    method, starter = METHODS[file.method], PROFILES["starter"]
    notes = (
        f"Row {file.row} of docs/evidence.md. Made by `make docs`: copy it and change the copy.",
        "It runs as it stands, on the tiny base and the pictures that ship with Kiln, to show that everything works; "
        "rates made for SDXL teach that base little. [K1] For SDXL change base, folder, bucket_step and prompts.",
    )
    choices = (
        Choice("base", starter.name, "your base here: a file, a folder or a hub id", ("B5",)),
        *method.choices,
        Choice("sample.sampler", starter.sampler, "usual for the starter", starter.evidence),
        Choice("sample.cfg", starter.cfg, "usual for the starter; 5 to 7 for SDXL", starter.evidence),
        Choice("sample.prompts", PROMPTS[file.folder], "with your own trigger word here", ("W2",)),
        Choice("dataset.folder", file.folder, "your pictures here, each with its caption beside it", ("S3",)),
        Choice("dataset.bucket_step", 16, "for the starter's 128 pixels; 64 at SDXL's 1024", ("K1", "S8")),
    )
    ordered = sorted(in_order(choices), key=lambda one: one.setting not in ("base", "dataset.folder"))
    return Advice(method.name, f"{method.title}.", notes, tuple(ordered)).toml()
