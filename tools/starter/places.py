"""Where the starter's making keeps its downloads, caches and finished files."""

import os
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("KILN_STARTER_BUILD", REPO / "build" / "starter"))
ASSETS = REPO / "lorakiln" / "assets"
EXAMPLES = REPO / "examples"
TOKENIZER = REPO / "lorakiln" / "families" / "sdxl" / "config" / "tokenizer"

OPENMOJI = BUILD / "openmoji" / "package"
TWEMOJI = BUILD / "twemoji" / "package"
NOTO_FONT = BUILD / "noto" / "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"

RESOLUTION = 128  # pixels; the VAE makes 16 x 16 latents of it
SEED = 20251
