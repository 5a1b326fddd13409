"""Makes the raw folder that `make demo` begins with: the example style's pictures as they might come from anywhere.

Captions are left out; eight copies, three blurred pictures and one cut-off file are planted among them.
`python -m tools.demo_raw build/demo/pictures` empties the folder first.
"""

import random
import shutil
import sys
from pathlib import Path

from PIL import Image

from benchmarks.planted import CHANGES, blurred

SOURCE = Path(__file__).parents[1] / "examples" / "twemoji"
PLANTED = ("resized", "mirrored", "recoloured", "cropped", "padded", "watermarked")


def make(folder: Path, seed: int = 7) -> dict[str, list[str]]:
    """Write the folder; what was planted, by kind."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng, planted = random.Random(seed), {}
    pictures = sorted(SOURCE.glob("*.png"))
    for path in pictures:
        shutil.copyfile(path, folder / path.name)
    chosen = rng.sample(pictures, len(PLANTED) + 5)
    for kind, path in zip(PLANTED, chosen, strict=False):
        with Image.open(path) as image:
            CHANGES[kind](image.convert("RGB"), rng).save(folder / f"{path.stem}_{kind}.png")
        planted[kind] = [f"{path.stem}_{kind}.png"]
    shutil.copyfile(chosen[6], folder / f"{chosen[6].stem} (1).png")
    with Image.open(chosen[7]) as image:
        image.convert("RGB").save(folder / f"{chosen[7].stem}.again.jpg", quality=60)
    planted["exact"], planted["reencoded"] = [f"{chosen[6].stem} (1).png"], [f"{chosen[7].stem}.again.jpg"]
    planted["blurred"] = []
    for path in chosen[8:]:
        with Image.open(path) as image:
            turned = image.convert("RGB").transpose(Image.Transpose.ROTATE_90)
        blurred(turned, 6).save(folder / f"{path.stem}_soft.png")
        planted["blurred"].append(f"{path.stem}_soft.png")
    (folder / "cut-off.png").write_bytes(pictures[0].read_bytes()[:2000])
    planted["unreadable"] = ["cut-off.png"]
    return planted


if __name__ == "__main__":
    place = Path(sys.argv[1] if len(sys.argv) > 1 else "build/demo/pictures")
    for kind, names in make(place).items():
        print(f"{kind:<12} {', '.join(names)}")
