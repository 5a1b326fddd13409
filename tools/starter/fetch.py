"""Downloads the emoji the starter learns from, and builds CLIP's tokenizer files, once.

OpenMoji (CC BY-SA 4.0) and Twemoji (CC BY 4.0) come from npm, Noto Color Emoji (OFL) from Debian.
"""

import gzip
import json
import subprocess
from pathlib import Path

from .places import BUILD, NOTO_FONT, OPENMOJI, TOKENIZER, TWEMOJI


def npm(package: str, folder: Path) -> None:
    """Unpack an npm package into `folder`/package."""
    folder.mkdir(parents=True, exist_ok=True)
    name = subprocess.run(
        ["npm", "pack", "--silent", package], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.split()[-1]
    subprocess.run(["tar", "xzf", name], cwd=folder, check=True)
    (folder / name).unlink()


def noto() -> None:
    """Unpack Debian's Noto Color Emoji font; only the VAE sees it, so going without is allowed."""
    folder = BUILD / "noto"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(["apt-get", "download", "fonts-noto-color-emoji"], cwd=folder, check=True)
        package = next(folder.glob("*.deb"))
        subprocess.run(["dpkg", "-x", package.name, "."], cwd=folder, check=True)
    except (OSError, subprocess.CalledProcessError, StopIteration) as error:
        print(f"no Noto font ({error}); the VAE will be trained on OpenMoji alone")


def byte_letters() -> list[str]:
    """CLIP's 256 printable stand-ins for bytes, in the order of its vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(rest))]


def tokenizer() -> None:
    """Turn OpenAI's merge list (MIT, inside the open_clip_torch wheel) into vocab and merges."""
    folder = BUILD / "open_clip"
    subprocess.run(["pip", "download", "-q", "--no-deps", "open_clip_torch", "-d", str(folder)], check=True)
    wheel = next(folder.glob("*.whl"))
    subprocess.run(["unzip", "-qo", wheel.name], cwd=folder, check=True)
    packed = (folder / "open_clip" / "bpe_simple_vocab_16e6.txt.gz").read_bytes()
    merges = gzip.decompress(packed).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = byte_letters()
    words = letters + [letter + "</w>" for letter in letters]
    words += ["".join(pair.split()) for pair in merges] + ["<|startoftext|>", "<|endoftext|>"]
    assert len(set(words)) == 49408
    TOKENIZER.mkdir(parents=True, exist_ok=True)
    ids = {word: index for index, word in enumerate(words)}
    (TOKENIZER / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    (TOKENIZER / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")


def drawings() -> None:
    """Fetch OpenMoji and Twemoji where they are not there yet."""
    if not OPENMOJI.exists():
        npm("openmoji", BUILD / "openmoji")
    if not TWEMOJI.exists():
        npm("@twemoji/svg", BUILD / "twemoji")


def fetch() -> None:
    """Fetch whatever is not there yet."""
    drawings()
    if not NOTO_FONT.exists():
        noto()
    if not (TOKENIZER / "vocab.json").exists():
        tokenizer()
