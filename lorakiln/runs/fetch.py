"""`kiln fetch`: a model of the Hugging Face hub into the local cache. The only place where Kiln downloads anything."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from lorakiln.base.errors import UserError
from lorakiln.tag import wd

# configurations, tokenizers and weights as safetensors; pickles and other frameworks' weights are never read here
READ = ("*.safetensors", "*.json", "*.txt", "*.model")
HALF = "*.fp16.safetensors"  # the second copy of a diffusers folder's weights


@dataclass(frozen=True, slots=True)
class Repository:
    """A model's id on the hub and its files with their bytes."""

    name: str
    files: dict[str, int]

    def wanted(self, only: Sequence[str] = ()) -> dict[str, int]:
        """The files that Kiln reads of it, or those that a pattern of `only` names. Raises UserError if there are none.

        Of a tagger the network and its tags; of a diffusers folder one copy of the weights, and no single file beside.
        """
        names = set(self.files)
        if only:
            kept = {name for name in names if any(fnmatch(name, pattern) for pattern in only)}
        elif {wd.MODEL, wd.TAGS} <= names:
            kept = {wd.MODEL, wd.TAGS, "config.json"} & names
        else:
            kept = {name for name in names if any(fnmatch(name, pattern) for pattern in READ)}
            kept -= {name for name in kept if fnmatch(name, HALF)}
            if "model_index.json" in names:
                kept -= {name for name in kept if "/" not in name and name.endswith(".safetensors")}
        if not kept:
            raise UserError(f"{self.name}: none of its {len(names)} files is {'named so' if only else 'read by Kiln'}")
        return {name: self.files[name] for name in sorted(kept)}


def look_up(name: str) -> Repository:
    """Ask the hub what a model consists of. Raises UserError where there is none, or no way to the hub."""
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        info = HfApi().model_info(name, files_metadata=True)
    except GatedRepoError:
        raise UserError(f"{name}: asks you to accept its terms; do so on its page, then 'hf auth login'") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise UserError(f"{name}: no such model on the hub; an id looks like owner/model") from None
    except (httpx2.HTTPError, OSError) as error:
        raise UserError(f"{name}: the hub cannot be reached ({type(error).__name__})") from None
    return Repository(name, {file.rfilename: file.size or 0 for file in info.siblings or []})


def download(name: str, wanted: dict[str, int]) -> Path:
    """Fetch these files into the cache, going on with what was begun; the folder they lie in."""
    import httpx2
    from huggingface_hub import constants, snapshot_download

    cache = Path(constants.HF_HUB_CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    need, free = sum(wanted.values()), shutil.disk_usage(cache).free
    if need > free:
        raise UserError(f"{name}: needs {need / 1e9:.1f} GB and {cache} has {free / 1e9:.1f} GB left; set HF_HOME")
    try:
        return Path(snapshot_download(name, allow_patterns=list(wanted)))
    except (httpx2.HTTPError, OSError) as error:
        raise UserError(f"{name}: the download broke off ({error}); run it again to go on") from None
