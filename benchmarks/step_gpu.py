"""What a whole step costs at SDXL's true size, beside diffusers + peft: `python -m benchmarks.step_gpu` on a GPU.

Random weights in bf16, latents of 1024 px, 77 tokens, rank 16 on kohya's 722 linear layers, no checkpointing. A step is
forward, loss, backward, clipping and the optimizer; between two synchronisations, since a host that is too slow is part
of the cost. Kiln runs as it trains: bf16 without autocast. The peer runs as diffusers' own script does: autocast,
`clip_grad_norm_`, torch's AdamW. Variants run one after another in one process. `--json` ends with one line of JSON;
`--size small --device cpu` only shows that it works.
"""

import argparse
import contextlib
import gc
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor, nn

from benchmarks.small_unet import inputs as small_inputs
from benchmarks.small_unet import small_unet
from benchmarks.step_cpu import DORA, PLAIN, RANK, TARGETS
from lorakiln.adapters.inject import inject
from lorakiln.adapters.spec import AdapterSpec
from lorakiln.families.sdxl.lean import skip_divisions_by_one
from lorakiln.families.sdxl.load import build
from lorakiln.families.sdxl.source import shipped
from lorakiln.optim.flat import FlatParameters
from lorakiln.optim.optimizers import optimizers
from lorakiln.runs.machine import device_name

GIB = 2**30
Inputs = dict[str, Tensor | dict[str, Tensor]]
Variant = Callable[[nn.Module], Callable[[Inputs], None]]


def sdxl_unet(device: torch.device) -> nn.Module:
    """SDXL's UNet with random bf16 weights; random numbers cost what trained ones do."""
    unet = build("unet", shipped("unet")).to_empty(device=device).to(torch.bfloat16).requires_grad_(False)
    rng = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.normal_(0, 0.02, generator=rng)
    return unet


def sdxl_inputs(batch: int, device: torch.device) -> Inputs:
    """A forward's arguments: 128 x 128 latents, 77 tokens of both encoders, the pooled state and the six time ids."""
    rng = torch.Generator(device).manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, device=device, dtype=torch.bfloat16)

    return {
        "sample": normal(batch, 4, 128, 128),
        "timestep": torch.full((batch,), 500, device=device),
        "encoder_hidden_states": normal(batch, 77, 2048),
        "added_cond_kwargs": {
            "text_embeds": normal(batch, 1280),
            "time_ids": torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024]], device=device).expand(batch, 6),
        },
    }


def tiny_inputs(batch: int, device: torch.device) -> Inputs:
    return {name: value.detach() if isinstance(value, Tensor) else value for name, value in small_inputs(batch).items()}


SIZES = {"sdxl": (sdxl_unet, sdxl_inputs), "small": (lambda device: small_unet().to(device), tiny_inputs)}


def loss_of(unet: nn.Module, arguments: Inputs) -> Tensor:
    """Mean squared error of the prediction against the input, in fp32."""
    predicted = unet(**arguments, return_dict=False)[0]
    return nn.functional.mse_loss(predicted.float(), arguments["sample"].float())  # ty: ignore[unresolved-attribute]


def kiln(spec: AdapterSpec, optimizer: str) -> Variant:
    """Kiln's step: flat gradients, clip, update, clear."""

    def prepare(unet: nn.Module) -> Callable[[Inputs], None]:
        skip_divisions_by_one(unet)
        names = {path: "lora_unet_" + path.replace(".", "_") for path, _ in unet.named_modules()}
        network = inject({"unet": unet}, {"unet": names}, spec, 0)
        flat = FlatParameters(network.parameters_by_part())
        update = optimizers[optimizer](flat)
        update.set_lr({"unet": 1e-6})
        steps = iter(range(1, 1_000_000))

        def step(arguments: Inputs) -> None:
            network.begin(next(steps))
            loss_of(unet, arguments).backward()
            flat.clip(1.0)
            update.step()
            flat.zero_grad()

        return step

    return prepare


def peft(**options) -> Variant:
    """diffusers' own way to train: peft's layers in fp32 under autocast."""

    def prepare(unet: nn.Module) -> Callable[[Inputs], None]:
        from peft import LoraConfig

        unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS, **options))
        trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
        for parameter in trained:
            parameter.data = parameter.data.float()
        update = torch.optim.AdamW(trained, lr=1e-6)

        def step(arguments: Inputs) -> None:
            with torch.autocast(trained[0].device.type, torch.bfloat16):
                loss = loss_of(unet, arguments)
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            update.step()
            update.zero_grad()

        return step

    return prepare


VARIANTS: dict[str, Variant] = {
    "lora_adamw": kiln(PLAIN, "adamw"),
    "lora_prodigy": kiln(PLAIN, "prodigy"),
    "lora_came": kiln(PLAIN, "came"),
    "dora_adamw": kiln(DORA, "adamw"),
    "dora_came": kiln(DORA, "came"),
    "peft_lora_adamw": peft(),
    "peft_dora_adamw": peft(use_dora=True),
}
# key of the result -> (variant, over which other), for each batch size
RATIOS = {
    "lora_over_peft": ("lora_adamw", "peft_lora_adamw"),
    "dora_over_peft": ("dora_adamw", "peft_dora_adamw"),
    "dora_over_lora": ("dora_adamw", "lora_adamw"),
    "dora_came_over_lora_adamw": ("dora_came", "lora_adamw"),
}


@contextlib.contextmanager
def emptied(device: torch.device) -> Iterator[None]:
    """Gives the memory of what was built inside back."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        yield
    finally:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def timed(step: Callable[[Inputs], None], arguments: Inputs, rounds: int, device: torch.device) -> float:
    """Median milliseconds of a step, after three that warm up."""
    spent = []
    for _ in range(3 + rounds):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        began = time.perf_counter()
        step(arguments)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        spent.append(1000 * (time.perf_counter() - began))
    return statistics.median(spent[3:])


def measure(size: str, names: list[str], batches: list[int], rounds: int, device: torch.device) -> dict[str, float]:
    """`NAME_bN_ms` and (on a GPU) `NAME_bN_gib`, the peak of everything; what does not fit is left out and told."""
    make_unet, make_inputs = SIZES[size]
    found: dict[str, float] = {}
    for name in names:
        for batch in batches:
            with emptied(device):
                try:
                    milliseconds = timed(VARIANTS[name](make_unet(device)), make_inputs(batch, device), rounds, device)
                except torch.OutOfMemoryError:
                    print(f"{name}, batch {batch}: does not fit into this GPU's memory")
                    continue
                found[f"{name}_b{batch}_ms"] = round(milliseconds, 2)
                if device.type == "cuda":
                    found[f"{name}_b{batch}_gib"] = round(torch.cuda.max_memory_allocated(device) / GIB, 2)
    for key, (one, other) in RATIOS.items():
        for batch in batches:
            mine, theirs = (found.get(f"{name}_b{batch}_ms") for name in (one, other))
            if mine and theirs:
                found[f"{key}_b{batch}"] = round(mine / theirs, 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--size", choices=list(SIZES), default="sdxl")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU here; --size small --device cpu shows that it works")
    figures = measure(options.size, options.only, options.batches, options.rounds, device)
    print(f"{device_name(device)}, torch {torch.__version__}, {options.size}")
    for name, value in figures.items():
        print(f"{name:32} {value:10.3f}")
    if options.json:
        print(json.dumps({"device": device_name(device), "torch": torch.__version__, **figures}))


if __name__ == "__main__":
    main()
