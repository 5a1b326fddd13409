"""Makes the starter from nothing: `python -m tools.starter` goes on wherever it was interrupted.

Each stage is its own process, so that memory is given back; a stage whose result is there is passed over.
"""

import argparse
import subprocess
import sys
import time

from . import examples, fetch, masters, progress, train_unet, train_v, train_vae
from .latents import LATENTS
from .places import ASSETS

POLISH_STEPS = 400


def run(module: str, *arguments: str) -> None:
    """A stage in a process of its own; logs the minutes it took."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", f"tools.starter.{module}", *arguments], check=True)
    progress.Log("stages").write(stage=module, minutes=round((time.monotonic() - began) / 60, 1))


def make(vae_steps: int, unet_steps: int, twin_steps: int) -> None:
    """All stages in order."""
    fetch.fetch()
    masters.make()
    if not LATENTS.exists():  # from then on the encoder must stay as it is
        run("train_vae", "--steps", str(vae_steps))
        run("latents")
    run("train_unet", "--steps", str(unet_steps))
    if not train_vae.POLISHED.exists():
        run("train_vae", "--polish", "--steps", str(POLISH_STEPS))
    run("export")
    run("train_v", "--steps", str(twin_steps))
    run("export", "--twin")
    examples.make()
    print(f"done: {ASSETS}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae-steps", type=int, default=train_vae.STEPS)
    parser.add_argument("--unet-steps", type=int, default=train_unet.STEPS)
    parser.add_argument("--twin-steps", type=int, default=train_v.STEPS)
    options = parser.parse_args()
    make(options.vae_steps, options.unet_steps, options.twin_steps)
