"""Counts what one optimizer step asks of the device on SDXL's 1,444 LoRA tensors, beside the peers in the same run.

    python -m benchmarks.optimizer_ops [--json] [--rank 16]

An operation is one call into aten as TorchDispatchMode sees it, views included; on a GPU most are a kernel launch of
some 5 microseconds. A sync is a read of a number by the host (`.item()`), for which the host waits. The second step is
counted, when the state exists. Counts do not depend on the machine, nor on the rank.
"""

import argparse
import contextlib
import io
import json
import os
import warnings
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lorakiln.optim.flat import FlatParameters
from lorakiln.optim.optimizers import optimizers

# (inputs or outputs, how many): kohya's default targets in SDXL's UNet, 722 linear layers with an A and a B each
A_INPUTS = {640: 80, 1280: 432, 2048: 140, 2560: 10, 5120: 60}
B_OUTPUTS = {640: 100, 1280: 552, 5120: 10, 10240: 60}
LIMITS = {"came_ops": 400, "adafactor_ops": 400, "prodigy_ops": 60, "prodigy_syncs": 0}
SYNCS = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal")


def shapes(rank: int) -> list[tuple[int, int]]:
    """The 1,444 shapes of SDXL's UNet LoRA, nine of them different."""
    down = [(rank, size) for size, count in A_INPUTS.items() for _ in range(count)]
    up = [(size, rank) for size, count in B_OUTPUTS.items() for _ in range(count)]
    return down + up


class Count(TorchDispatchMode):
    """Counts operations and syncs while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.syncs = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations += 1
        self.syncs += func.__name__.split(".")[0] in SYNCS
        return func(*args, **(kwargs or {}))


def counted(step: Callable[[], object]) -> dict[str, int]:
    """Operations and syncs of the second call of `step`."""
    step()
    with Count() as count:
        step()
    return {"ops": count.operations, "syncs": count.syncs}


def parameters(rank: int) -> list[nn.Parameter]:
    return [nn.Parameter(torch.full(shape, 0.01)) for shape in shapes(rank)]


def ours(name: str, rank: int) -> dict[str, int]:
    """One step of Kiln's optimizer, setting its rate included."""
    flat = FlatParameters({"unet": parameters(rank)})
    optimizer = optimizers[name](flat)

    def step() -> None:
        flat.gradients_buffer.fill_(1e-3)
        optimizer.set_lr({"unet": 1.0 if name == "prodigy" else 1e-4})
        optimizer.step()

    result = counted(step)
    result["ops"] -= 1  # the fill
    return result


def theirs(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], rank: int) -> dict[str, int]:
    tensors = parameters(rank)
    for tensor in tensors:
        tensor.grad = torch.full_like(tensor, 1e-3)
    return counted(make(tensors).step)


def peers() -> dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]]:
    """The reference implementations that the tests compare with."""
    import prodigyopt
    import pytorch_optimizer
    import transformers

    return {
        "prodigyopt": prodigyopt.Prodigy,
        "pytorch_optimizer_came": pytorch_optimizer.CAME,
        "transformers_adafactor": lambda tensors: transformers.Adafactor(
            tensors, lr=1e-4, scale_parameter=False, relative_step=False
        ),
        "torch_adamw": lambda tensors: torch.optim.AdamW(tensors, foreach=False),
        "torch_adamw_foreach": lambda tensors: torch.optim.AdamW(tensors, foreach=True),
    }


def measure(rank: int) -> dict[str, int]:
    """`<name>_ops` and `<name>_syncs` of every optimizer here and of the peers."""
    found = {}
    for name in ("adamw", "prodigy", "came", "adafactor", "lion"):
        found |= {f"{name}_{what}": number for what, number in ours(name, rank).items()}
    for name, make in peers().items():
        found |= {f"{name}_{what}": number for what, number in theirs(make, rank).items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rank", type=int, default=16, help="rank of the LoRA; changes memory, not counts")
    arguments = parser.parse_args()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the peers' own
        found = measure(arguments.rank)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{'one step on 1,444 tensors':<28}{'operations':>12}{'syncs':>8}   at most")
    for name in sorted({key.rpartition("_")[0] for key in found}):
        limit = LIMITS.get(f"{name}_ops")
        print(f"{name:<28}{found[f'{name}_ops']:>12,}{found[f'{name}_syncs']:>8,}   {limit or ''}")


if __name__ == "__main__":
    main()
