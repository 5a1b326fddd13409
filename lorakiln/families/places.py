"""Where a base model lies on this machine, from the name that the user gave; nothing is ever downloaded."""

from pathlib import Path

from lorakiln.base.errors import UserError, nearest
from lorakiln.base.pickles import SUFFIXES as PICKLES

FILES = {".safetensors", *PICKLES}
ASSETS = Path(__file__).parent.parent / "assets"
# the bases that ship with Kiln; everything below treats them as any other file
BUNDLED = {"starter": "starter.safetensors", "starter-v": "starter-v.safetensors"}


def find(name: str | Path) -> Path:
    """The file or folder meant by a bundled name, a path, or a hub id ("owner/model") in the local Hugging Face cache.

    Raises UserError where there is none, with the closest file names.
    """
    text = str(name)
    if text in BUNDLED:
        return _bundled(text)
    path = Path(text).expanduser()
    if path.exists():
        return path
    if text.count("/") == 1 and not text.startswith((".", "~", "/")) and path.suffix.lower() not in FILES:
        return _cached(text)
    if path.parent.is_dir():
        near = sorted(p.name for p in path.parent.glob("*.safetensors"))
        raise UserError(f"{text}: no such file or folder{nearest(path.name, near) if near else ''}")
    raise UserError(f"{text}: no such file or folder; name a .safetensors file, a diffusers folder or 'starter'")


def _bundled(name: str) -> Path:
    path = ASSETS / BUNDLED[name]
    if not path.exists():
        raise UserError(f"base = '{name}': {path.name} is missing from this installation; install Kiln again")
    return path


def _cached(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(hub_id, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise UserError(
            f"{hub_id}: no such file or folder, and no such model in the local Hugging Face cache; "
            f"Kiln downloads nothing by itself: run 'kiln fetch {hub_id}' first"
        ) from error
    if (folder / "model_index.json").exists():
        return folder
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return files[0]
    found = ", ".join(file.name for file in files) or "none"
    raise UserError(f"{hub_id}: its cached copy {folder} has no model_index.json; .safetensors files there: {found}")
