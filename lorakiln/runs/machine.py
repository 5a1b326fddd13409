"""What this machine offers a run: devices, number formats, processes."""

import os
import platform
import sys
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed

from lorakiln import families
from lorakiln.adapters.files import write
from lorakiln.base.errors import UserError
from lorakiln.families.family import Family

try:
    import resource
except ImportError:  # Windows has none
    resource = None

# weights of a UNet below which handing work to a second thread costs more than it saves (a third of the speed, on two)
SMALL = 50e6
# the others wait while the first process draws samples, judges and saves; torchrun ends them all when one dies
LONGEST_WAIT = timedelta(days=7)
# None: what suits the device, as `families.load` says
DTYPES = {"auto": None} | write.DTYPES


def choose_device(name: str) -> torch.device:
    """The device a recipe names; 'auto' is this process's GPU, or the CPU where there is none.

    Of several processes on a machine each has the GPU of its number. UserError for a device that is not there.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if gpus else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device = '{name}': choose from auto, cpu, cuda, cuda:0, cuda:1, ...") from None
    if device.type != "cuda":
        return device
    if (device.index or 0) >= gpus:
        raise UserError(f"device = '{name}': this machine has {gpus} usable GPUs")
    local, processes = (int(os.environ.get(key, "0")) for key in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    if device.index is None:
        if local >= gpus:
            raise UserError(f"process {local + 1} of this machine has no GPU: start at most --nproc-per-node={gpus}")
        return torch.device("cuda", local)
    if processes > 1:
        raise UserError(f"device = '{name}': all {processes} processes would share one GPU; set device = 'auto'")
    return device


def load_base(
    base: str,
    device: torch.device,
    precision: str = "auto",
    *,
    vae: str = "",
    prediction: str = "auto",
    ztsnr: str = "auto",
) -> Family:
    """The frozen base on this device, and as many CPU threads as suit it. Raises UserError as `families.load` does."""
    family = families.load(
        base, vae=vae or None, dtype=DTYPES[precision], device=device, prediction=prediction, ztsnr=ztsnr
    )
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        weights = sum(weight.numel() for weight in family.parts["unet"].parameters())
        if weights < SMALL:
            torch.set_num_threads(1)
    return family


def device_name(device: torch.device) -> str:
    """What a person calls the device: the GPU's name, or the processor's architecture."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU {platform.machine()}"


def peak_memory(device: torch.device) -> float | None:
    """GiB at the fullest moment so far: the GPU's tensors, or on a CPU the whole process; None where nobody counts."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**30, 3)
    if resource is None:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 3)


@dataclass(frozen=True)
class World:
    """This process among those that torchrun started; alone it is rank 0 of 1."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    def leave(self) -> None:
        """Part from the others; for a run that went well, since all must come here."""
        if self.size > 1:
            torch.distributed.destroy_process_group()

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            torch.distributed.barrier()


def join_world(device: torch.device) -> World:
    """Join the processes that torchrun started, if it did."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=LONGEST_WAIT)
    return World(torch.distributed.get_rank(), size)
