"""One drawing that a verdict rests on."""

from dataclasses import dataclass

from PIL import Image

from lorakiln.judge.copying import Nearest


@dataclass(frozen=True, slots=True)
class Cell:
    """A drawing of `lora` ("" for the base alone) at `strength`, and its nearest training picture if it was sought."""

    lora: str
    strength: float
    prompt: str
    seed: int
    picture: Image.Image
    nearest: Nearest | None = None
