"""Takes docs/pictures/curate-report.webp: a picture of the report that `kiln curate` writes, as a browser shows it.

Run `python -m tools.curate_picture`; it needs chromium. The set is the demo's raw one, with one picture copied in every
way that is told apart.
"""

import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from benchmarks.planted import CHANGES
from lorakiln.base.errors import UserError
from tools import demo_raw

TARGET = Path(__file__).parents[1] / "docs" / "pictures" / "curate-report.webp"
WIDTH, HEIGHT = 1180, 1128


def make() -> None:
    """Plant, curate, take the picture."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise UserError("chromium: not found; install it to take the picture")
    with tempfile.TemporaryDirectory() as place:
        folder, page, shot = Path(place) / "pictures", Path(place) / "report.html", Path(place) / "report.png"
        _plant(folder)
        curate = [sys.executable, "-m", "lorakiln", "curate", "pictures", "--for", "style", "--resolution", "128"]
        subprocess.run([*curate, "--report", str(page)], check=True, cwd=place, capture_output=True)
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1"]
        window = [f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={shot}", page.as_uri()]
        subprocess.run([browser, *options, *window], check=True, capture_output=True, timeout=300)
        with Image.open(shot) as image:
            image.convert("RGB").save(TARGET, "WEBP", quality=85)


def _plant(folder: Path) -> None:
    """The demo's raw pictures, and every kind of copy of one that has none there."""
    planted = demo_raw.make(folder)
    taken = {name.partition("_")[0].partition(".")[0] for names in planted.values() for name in names}
    path = next(
        one for one in sorted(folder.glob("*.png"), reverse=True) if one.stem not in taken and "_" not in one.stem
    )
    rng = random.Random(3)
    with Image.open(path) as image:
        picture = image.convert("RGB")
    for kind, change in CHANGES.items():
        change(picture, rng).save(folder / f"{path.stem}_{kind}.png")
    picture.save(folder / f"{path.stem}_again.jpg", quality=70)
    shutil.copyfile(path, folder / f"{path.stem} (1).png")


if __name__ == "__main__":
    make()
