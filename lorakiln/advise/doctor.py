"""`kiln doctor`: what this machine has and lacks for training; torch is asked in a process of its own."""

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lorakiln.advise.cards import Installed, installed

LOW_MEMORY, LOW_DISK, SLOW = 12.0, 10.0, 50.0  # GiB, GiB, MB a second
OPTIONAL = {
    "bitsandbytes": "8-bit AdamW (optim.name = 'adamw8bit')",
    "onnxruntime": "tagging pictures (kiln tag)",
    "matplotlib": "loss curves",
    "tensorboard": "watching with TensorBoard",
}
# asked in another process, so that this one never waits for torch unless it is wanted
_ASK = """
import json, torch
out = {"version": torch.__version__, "cuda": torch.version.cuda, "available": torch.cuda.is_available()}
if out["available"]:
    out["arches"] = torch.cuda.get_arch_list()
    out["bf16"] = torch.cuda.is_bf16_supported()
    q = torch.randn(1, 1, 128, 64, device="cuda", dtype=torch.float16, generator=torch.Generator("cuda").manual_seed(0))
    from torch.nn.attention import SDPBackend, sdpa_kernel
    out["kernels"] = []
    for name in ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION"):
        try:
            with sdpa_kernel([getattr(SDPBackend, name)]):
                torch.nn.functional.scaled_dot_product_attention(q, q, q)
            out["kernels"].append(name.split("_")[0].lower())
        except Exception:
            pass
print(json.dumps(out))
"""


@dataclass(frozen=True, slots=True)
class Told:
    """One line: what was looked at, how it is, and how to cure it."""

    what: str
    state: Literal["good", "bad", "note"]
    told: str
    cure: str = ""


def examine(folder: Path) -> list[Told]:
    """Everything, in the order in which it would stop a run."""
    cards = installed(timeout=5)
    torch = ask_torch()
    return [
        *card_lines(cards, torch),
        *torch_lines(torch),
        *package_lines(),
        memory_line(),
        *disk_lines(folder),
        *path_lines(),
    ]


def ask_torch(timeout: float = 120.0) -> dict[str, Any]:
    """torch's own account of itself and the card; {"problem": ...} where it cannot even be imported."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK], capture_output=True, text=True, timeout=timeout, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return {"problem": str(error)}
    if done.returncode:
        return {"problem": (done.stderr.strip().splitlines() or ["no reason given"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def card_lines(cards: list[Installed], torch: dict[str, Any]) -> list[Told]:
    """Card and driver, and whether this torch was built for the card."""
    if not cards:
        return [Told("card", "note", "no NVIDIA card found; training works on the CPU, for the starter in minutes")]
    lines = []
    for one in cards:
        major, minor = one.capability
        text = f"{one.name}, {one.vram:.0f} GiB ({one.free:.0f} free), driver {one.driver}, capability {major}.{minor}"
        lines.append(Told("card", "good", text))
        arches = torch.get("arches")
        if arches and not fits(one.capability, arches):
            cure = "install a newer build (RTX 50 cards need CUDA 12.8): see pytorch.org/get-started"
            lines.append(Told("torch build", "bad", f"made for {', '.join(arches)}, not for this card", cure))
        if one.capability < (8, 0):
            lines.append(Told("bf16", "note", "this card has none", "fp16 is used; set train.precision = 'fp16'"))
    if torch.get("cuda") is None and "problem" not in torch:
        lines.append(
            Told("torch build", "bad", "a CPU build beside an NVIDIA card", "install the CUDA build: pytorch.org")
        )
    elif torch.get("available") is False:
        lines.append(Told("CUDA", "bad", "torch cannot use the card", "update the driver"))
    return lines


def fits(capability: tuple[int, int], arches: list[str]) -> bool:
    """Whether a build with these architectures runs on the card: "sm_86" of its major, or "compute_90" not newer."""
    for arch in arches:
        kind, _, number = arch.partition("_")
        digits = "".join(letter for letter in number if letter.isdigit())
        built = (int(digits[:-1]), int(digits[-1]))
        if (kind == "sm" and built[0] == capability[0] and built <= capability) or (
            kind == "compute" and built <= capability
        ):
            return True
    return False


def torch_lines(torch: dict[str, Any]) -> list[Told]:
    if "problem" in torch:
        return [Told("torch", "bad", torch["problem"], "pip install torch")]
    lines = [
        Told("torch", "good", f"{torch['version']}{', CUDA ' + torch['cuda'] if torch.get('cuda') else ', CPU build'}")
    ]
    if torch.get("available"):
        kernels = torch.get("kernels") or []
        state = "good" if kernels else "bad"
        cure = "" if kernels else "without one, memory and time grow with the square of the picture; update torch"
        lines.append(Told("attention", state, ", ".join(kernels) or "no fast kernel", cure))
    return lines


def package_lines() -> list[Told]:
    """Optional packages, what each is for, and which devices onnxruntime can use."""
    lines = []
    for name, use in OPTIONAL.items():
        if importlib.util.find_spec(name) is None:
            lines.append(Told(name, "note", f"not installed; for {use}", f"pip install {name}"))
        else:
            lines.append(Told(name, "good", _version(name)))
    if importlib.util.find_spec("onnxruntime"):
        import onnxruntime

        lines.append(Told("onnx devices", "good", ", ".join(onnxruntime.get_available_providers())))
    return lines


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "installed"


def memory_line() -> Told:
    """Free memory of the machine, as Linux tells it; elsewhere nothing is said."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 2**20
    except (OSError, StopIteration, ValueError):
        return Told("memory", "note", "free memory cannot be read on this system")
    if free < LOW_MEMORY:
        return Told("memory", "note", f"{free:.1f} GiB free; an SDXL base wants about {LOW_MEMORY:g} while it loads")
    return Told("memory", "good", f"{free:.1f} GiB free")


def disk_lines(folder: Path) -> list[Told]:
    """Free space and write speed of a folder."""
    free = shutil.disk_usage(folder).free / 2**30
    state = "good" if free >= LOW_DISK else "note"
    lines = [Told("disk", state, f"{free:.1f} GiB free in {folder}")]
    try:
        speed = write_speed(folder)
    except OSError as error:
        return [
            *lines,
            Told("write speed", "bad", f"cannot write into {folder} ({error.strerror})", "choose another folder"),
        ]
    lines.append(Told("write speed", "good" if speed >= SLOW else "note", f"{speed:.0f} MB/s"))
    return lines


def write_speed(folder: Path, megabytes: int = 32) -> float:
    """MB a second that reach the disk. Raises OSError where the folder cannot be written."""
    block = os.urandom(2**20)
    with tempfile.TemporaryFile(dir=folder) as stream:
        start = time.monotonic()
        for _ in range(megabytes):
            stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())
    return megabytes / max(1e-6, time.monotonic() - start)


def path_lines() -> list[Told]:
    """Windows cuts paths at 260 characters unless it is told otherwise."""
    if sys.platform != "win32":
        return []
    import winreg

    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SYSTEM\CurrentControlSet\Control\FileSystem") as key:
        long = winreg.QueryValueEx(key, "LongPathsEnabled")[0] == 1
    if long:
        return [Told("long paths", "good", "allowed")]
    return [Told("long paths", "note", "paths end at 260 characters", "enable LongPathsEnabled, or keep folders short")]
