"""Taggers in the file layout of the WD14 family (v2 and v3, MOAT v2): `model.onnx` and `selected_tags.csv`.

A picture is laid on white, padded to a square, resized, and given as BGR numbers 0-255, whatever its size was.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lorakiln.base.errors import UserError
from lorakiln.tag.rules import plain
from lorakiln.tag.tagger import Guess, Tagged

MODEL, TAGS = "model.onnx", "selected_tags.csv"
STARTER = Path(__file__).parent.parent / "assets" / "tagger"
_GENERAL, _CHARACTER, _RATING = 0, 4, 9  # category numbers in selected_tags.csv
_GPU = ("CUDAExecutionProvider", "ROCMExecutionProvider", "CoreMLExecutionProvider")
_AT_ONCE = 8


class WdTagger:
    """A loaded model. `provider` says what it runs on; `side` is the square it looks at, pixels."""

    def __init__(self, folder: Path, device: str = "auto", threads: int = 0):
        self.folder = folder
        names, categories = _vocabulary(folder / TAGS)
        self._session, self.provider = _session(folder / MODEL, device, threads)
        self._input = self._session.get_inputs()[0]
        self.side = _side(folder, self._input.shape)
        fixed = self._input.shape[0]
        self.batch = fixed if isinstance(fixed, int) and fixed > 0 else _AT_ONCE
        self._fixed = isinstance(fixed, int) and fixed > 0
        outputs = self._session.get_outputs()[0].shape[-1]
        if isinstance(outputs, int) and outputs != len(names):
            raise UserError(f"{folder}: {MODEL} gives {outputs} chances but {TAGS} names {len(names)} tags")
        self.vocabulary = names
        self._places = {kind: np.flatnonzero(categories == kind) for kind in (_GENERAL, _CHARACTER, _RATING)}

    def tags(self, pictures: Sequence[Image.Image]) -> list[Tagged]:
        """Every tag's chance for each picture, likeliest first, kinds apart."""
        return self.answers(np.stack([prepare(picture, self.side) for picture in pictures]))

    def answers(self, pixels_BHWC: np.ndarray) -> list[Tagged]:
        """The same for prepared pixels; a model of fixed batch size is fed full batches."""
        rows = []
        for at in range(0, len(pixels_BHWC), self.batch if self._fixed else len(pixels_BHWC)):
            part = pixels_BHWC[at : at + self.batch] if self._fixed else pixels_BHWC
            count = len(part)
            if self._fixed and count < self.batch:
                part = np.concatenate([part, np.repeat(part[-1:], self.batch - count, axis=0)])
            rows.append(self._session.run(None, {self._input.name: part})[0][:count])
        return [self._tagged(row) for row in np.concatenate(rows)]

    def _tagged(self, chances: np.ndarray) -> Tagged:
        if not np.isfinite(chances).all():
            raise UserError(f"{self.folder / MODEL}: gives chances that are no numbers; the file is damaged")
        kinds = []
        for places in self._places.values():
            order = places[np.argsort(-chances[places], kind="stable")]
            kinds.append(tuple(Guess(self.vocabulary[at], float(chances[at])) for at in order))
        return Tagged(*kinds)


def load(name: str, device: str = "auto", threads: int = 0) -> WdTagger:
    """A tagger by folder, by hub id already in the local cache, or "starter" for the one that ships with Kiln.

    Raises UserError naming the folder for a model that is missing or broken; no other model is taken instead.
    """
    if name == "starter":
        return WdTagger(STARTER, device, threads)
    folder = Path(name).expanduser()
    if not folder.is_dir() and name.count("/") == 1 and not name.startswith((".", "/", "~")):
        folder = _cached(name)
    return WdTagger(folder, device, threads)


def prepare(picture: Image.Image, side: int) -> np.ndarray:
    """(side, side, 3) float32 BGR, 0-255: the picture in the middle of a white square, resized (bicubic)."""
    longest = max(picture.size)
    square = picture
    if picture.width != picture.height:
        square = Image.new("RGB", (longest, longest), (255, 255, 255))
        square.paste(picture, ((longest - picture.width) // 2, (longest - picture.height) // 2))
    if longest != side:
        square = square.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(square, dtype=np.float32)[:, :, ::-1]


def _cached(name: str) -> Path:
    """The folder of a hub id in the local cache; nothing is downloaded."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[MODEL, TAGS], local_files_only=True))
    except (OSError, ValueError):
        raise UserError(
            f"{name}: neither a folder nor in the local hub cache; 'kiln fetch {name}' downloads it"
        ) from None


def _vocabulary(path: Path) -> tuple[list[str], np.ndarray]:
    """Names with spaces (kaomoji as they are) and categories, in the order of the model's outputs."""
    if not path.is_file():
        raise UserError(f"{path.parent}: holds no {path.name}; a WD tagger is a folder with {MODEL} and {TAGS}")
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [(row["name"], int(row["category"])) for row in csv.DictReader(stream)]
    except (KeyError, ValueError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: is not a tagger's list of tags ({error!r})") from None
    if not rows:
        raise UserError(f"{path}: names no tag")
    return [plain(name) for name, _ in rows], np.array([category for _, category in rows])


def _session(path: Path, device: str, threads: int) -> tuple[Any, str]:
    """The loaded model, and in words what it runs on: onnxruntime takes the CPU when a GPU that it knows fails."""
    if not path.is_file():
        raise UserError(f"{path.parent}: holds no {path.name}; a WD tagger is a folder with {MODEL} and {TAGS}")
    try:
        import onnxruntime
    except ImportError:
        raise UserError("tagging needs onnxruntime; install it with: pip install onnxruntime") from None
    there = onnxruntime.get_available_providers()
    gpu = [provider for provider in _GPU if provider in there]
    if device not in ("auto", "cpu", "gpu"):
        raise UserError(f"device '{device}': choose from auto, cpu, gpu")
    if device == "gpu" and not gpu:
        raise UserError(f"device gpu: this onnxruntime knows no GPU, only {', '.join(there)}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    providers = ["CPUExecutionProvider"] if device == "cpu" else [*gpu, "CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime raises a class of its own for each kind of damage
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:120]
        raise UserError(f"{path}: is not a readable ONNX model ({reason})") from None
    used = session.get_providers()[0]
    if used in _GPU or device == "cpu" or not gpu:
        return session, used
    if device == "gpu":
        raise UserError(f"device gpu: {gpu[0]} does not start here, so look to its driver and libraries, or say cpu")
    return session, f"{used}, since {gpu[0]} does not start here"


def _side(folder: Path, shape: Sequence[Any]) -> int:
    if len(shape) != 4 or shape[3] != 3 or not isinstance(shape[1], int) or shape[1] != shape[2]:
        raise UserError(
            f"{folder / MODEL}: takes {list(shape)}, not square pictures of 3 channels (batch, side, side, 3)"
        )
    return shape[1]
