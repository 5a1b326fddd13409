"""The demo, measured: seconds of its stages, and what its LoRA gains on pictures of the style that it never saw.

`python -m benchmarks.demo [--json]` runs `make demo` in a folder of its own; about four minutes on two cores.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: OpenMP must not spin

from lorakiln import families
from lorakiln.judge.heldout import denoising_losses, gain, read_held_out
from lorakiln.runs.drawing import load_lora

ROOT = Path(__file__).parent.parent
HELD_OUT = ROOT / "examples" / "twemoji-heldout"


def heldout_gain(lora: Path, base: str = "starter") -> tuple[float, float]:
    """(gain on the emoji's own pixels, the same at strength 0): 20 held-out Twemoji, 16 timesteps, fixed noise."""
    family = families.load(base)
    pictures = sorted(HELD_OUT.glob("*.png"))
    captions = [picture.with_suffix(".txt").read_text(encoding="utf-8").strip() for picture in pictures]
    masks = [HELD_OUT / "masks" / picture.name for picture in pictures]
    before = denoising_losses(family, read_held_out(family, pictures, captions, masks))
    network = load_lora(family, lora, 1.0)
    # read anew: a LoRA with text encoders changes the text states too
    after = denoising_losses(family, read_held_out(family, pictures, captions, masks))
    network.strength = 0.0
    nothing = denoising_losses(family, read_held_out(family, pictures, captions, masks))
    return gain(before, after), gain(before, nothing)


def measure() -> dict[str, float]:
    """Run the demo and measure its LoRA."""
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        subprocess.run(["make", "-s", "demo", f"DEMO={folder}/demo", f"RUNS={folder}/runs"], check=True, stdout=2)
        seconds = time.monotonic() - began
        run = Path(folder) / "runs" / "demo"
        gained, nothing = heldout_gain(run / "demo.safetensors")
        stages = json.loads((run / "run.json").read_text(encoding="utf-8"))["seconds"]
    named = {f"{name.replace(' ', '_')}_s": value for name, value in stages.items()}
    return {"demo_s": seconds, "heldout_gain": gained, "strength_zero_gain": nothing} | named


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    figures = measure()
    print("| what | measured | to reach |\n|---|---|---|")
    targets = {"demo_s": "<= 360", "train_s": "<= 180", "heldout_gain": ">= 0.10", "strength_zero_gain": "0"}
    for name, value in figures.items():
        print(f"| {name} | {value:.3f} | {targets.get(name, '')} |")
    if options.json:
        print(json.dumps(figures))
