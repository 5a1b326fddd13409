"""What adapters cost over the frozen model, on one CPU thread, beside the peers': `python -m benchmarks.step_cpu`.

Forward and backward of the small UNet (`small_unet`), fp32, batch 2, in process CPU seconds. The floor is the frozen
UNet with a gradient to its input. Variants take turns, so that a slow minute slows them all; the printed time is the
median over the rounds and a ratio is the median of the rounds' own ratios, with its quartiles. `--json` ends with one
line of JSON. CPU seconds still grow when another process shares caches and memory: leave the machine alone meanwhile.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from benchmarks.small_unet import ADAPTED_LINEARS, inputs, small_unet
from lorakiln.adapters.inject import inject
from lorakiln.adapters.spec import AdapterSpec
from lorakiln.optim.flat import FlatParameters
from lorakiln.optim.optimizers import optimizers

Optimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
RANK = 16
TARGETS = r".*attentions.*\.(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2)"
# key of the result -> (variant, over which other, to reach)
RATIOS = {
    "lora_over_floor": ("lora", "floor", 1.18),
    "peft_over_floor": ("peft", "floor", None),
    "step_over_floor": ("step", "floor", 1.30),
    "dora_over_lora": ("dora", "lora", 1.12),
    "dora_over_floor": ("dora", "floor", None),
    "loha_over_floor": ("loha", "floor", None),
    "lycoris_loha_over_floor": ("lycoris_loha", "floor", None),
    "loha_over_lycoris": ("loha", "lycoris_loha", 0.75),
    "lokr_over_floor": ("lokr", "floor", None),
    "lycoris_lokr_over_floor": ("lycoris_lokr", "floor", None),
    "lokr_over_lycoris": ("lokr", "lycoris_lokr", 0.75),
    "dora_came_over_lora_adamw": ("dora_came", "step", 1.20),
    "lycoris_dora_came_over_lora_adamw": ("lycoris_dora_came", "step", None),
}


@dataclass
class Variant:
    """One way to take a step: its model, and what follows the backward pass (clearing gradients, or a whole update)."""

    unet: nn.Module
    after: Callable[[], None]
    arguments: dict = field(default_factory=inputs)

    def step(self, dy: Tensor) -> float:
        """CPU seconds of one forward, backward and what follows."""
        self.arguments["sample"].grad = None
        start = time.process_time()
        self.unet(**self.arguments, return_dict=False)[0].backward(dy)
        self.after()
        return time.process_time() - start


def floor() -> Variant:
    return Variant(small_unet(), lambda: None)


def kiln(spec: AdapterSpec, optimizer: str = "", **options) -> Variant:
    """Kiln's adapter with gradients in flat buffers; with `optimizer`, its whole step: clip, update, clear."""
    unet = small_unet()
    names = {path: "lora_unet_" + path.replace(".", "_") for path, _ in unet.named_modules()}
    network = inject({"unet": unet}, {"unet": names}, spec, 0)
    assert len(network.adapters) == ADAPTED_LINEARS
    stir([trained.parameter for trained in network.trained()])
    flat = FlatParameters(network.parameters_by_part())
    if not optimizer:
        return Variant(unet, flat.zero_grad)
    update = optimizers[optimizer](flat, **options)
    update.set_lr({"unet": 1e-6})

    def whole_step() -> None:
        flat.clip(1.0)
        update.step()
        flat.zero_grad()

    return Variant(unet, whole_step)


def peft(**options) -> Variant:
    """diffusers' own way to train a LoRA."""
    from peft import LoraConfig

    unet = small_unet()
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS, **options))
    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    assert sum("lora_A" in name for name, _ in unet.named_parameters()) == ADAPTED_LINEARS
    return Variant(unet, cleared(parameters))


def lycoris(algorithm: str, optimizer: Optimizer | None = None, **options) -> Variant:
    """LyCORIS's own way, with its default forward; with `optimizer`, its whole step: clip, update, drop."""
    from lycoris.modules.locon import LoConModule
    from lycoris.modules.loha import LohaModule
    from lycoris.modules.lokr import LokrModule

    kind = {"lora": LoConModule, "loha": LohaModule, "lokr": LokrModule}[algorithm]
    unet = small_unet()
    modules = [
        kind(path.replace(".", "_"), layer, 1.0, RANK, RANK, **options)
        for home, block in unet.named_modules()
        if type(block).__name__ == "Transformer2DModel"
        for path, layer in ((f"{home}.{inner}", layer) for inner, layer in block.named_modules())
        if isinstance(layer, nn.Linear)
    ]
    assert len(modules) == ADAPTED_LINEARS
    for module in modules:
        module.apply_to()
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return Variant(unet, cleared(parameters) if optimizer is None else stepped(parameters, optimizer))


def came(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """pytorch-optimizer's CAME, as it comes."""
    import pytorch_optimizer

    return pytorch_optimizer.CAME(parameters, lr=1e-6)


def cleared(parameters: list[nn.Parameter]) -> Callable[[], None]:
    """Random values for what starts at zero, and a function that drops the gradients."""
    stir(parameters)

    def clear() -> None:
        for parameter in parameters:
            parameter.grad = None

    return clear


def stepped(parameters: list[nn.Parameter], optimizer: Optimizer) -> Callable[[], None]:
    """Random values for what starts at zero, and a function that clips, updates and drops the gradients."""
    stir(parameters)
    update = optimizer(parameters)

    def whole_step() -> None:
        nn.utils.clip_grad_norm_(parameters, 1.0)
        update.step()
        update.zero_grad()

    return whole_step


@torch.no_grad()
def stir(parameters: list[nn.Parameter]) -> None:
    """Trained tensors start at zero; arithmetic with zeros may be cheaper than with numbers."""
    for parameter in parameters:
        parameter += torch.randn_like(parameter) * 0.01


PLAIN = AdapterSpec(rank=RANK, alpha=RANK)
DORA = replace(PLAIN, dora=True)
VARIANTS: dict[str, Callable[[], Variant]] = {
    "floor": floor,
    "lora": lambda: kiln(PLAIN),
    "peft": peft,
    "step": lambda: kiln(PLAIN, "adamw"),
    "dora": lambda: kiln(DORA),
    "dora_came": lambda: kiln(DORA, "came"),
    "lycoris_dora_came": lambda: lycoris("lora", came, weight_decompose=True, wd_on_out=False),
    "loha": lambda: kiln(replace(PLAIN, kind="loha")),
    "lycoris_loha": lambda: lycoris("loha"),
    "lokr": lambda: kiln(replace(PLAIN, kind="lokr", factor=8)),
    "lycoris_lokr": lambda: lycoris("lokr", factor=8),
}


def measure(names: list[str], rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Variant -> CPU seconds of each round, the variants taking turns."""
    variants = {name: VARIANTS[name]() for name in names}
    dy = torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(3))
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index in range(warm_up + rounds):
        for name, variant in variants.items():
            spent = variant.step(dy)
            if index >= warm_up:
                seconds[name].append(spent)
    return seconds


def ratios(seconds: dict[str, list[float]]) -> dict[str, tuple[float, float, float]]:
    """Key -> median of the rounds' ratios, and their quartiles."""
    found = {}
    for key, (variant, other, _) in RATIOS.items():
        if variant in seconds and other in seconds:
            each = [mine / theirs for mine, theirs in zip(seconds[variant], seconds[other], strict=True)]
            low, middle, high = statistics.quantiles(each, n=4)
            found[key] = (middle, low, high)
    return found


def report(seconds: dict[str, list[float]]) -> None:
    """The table for people."""
    print(f"{'variant':18} {'CPU s':>7} {'fastest':>8}")
    for name, spent in seconds.items():
        print(f"{name:18} {statistics.median(spent):7.3f} {min(spent):8.3f}")
    print(f"\n{'ratio':34} {'median':>7} {'quartiles':>13}  to reach")
    for key, (middle, low, high) in ratios(seconds).items():
        aim = RATIOS[key][2]
        verdict = "" if aim is None else f"<= {aim}: {'reached' if middle <= aim else 'missed'}"
        print(f"{key:34} {middle:7.3f} {low:6.3f}-{high:.3f}  {verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seconds = measure(arguments.only, arguments.rounds)
    report(seconds)
    if arguments.json:
        result: dict[str, object] = {"rounds": arguments.rounds, "torch": torch.__version__}
        for key, (middle, low, high) in ratios(seconds).items():
            result |= {key: round(middle, 3), f"{key}_spread": [round(low, 3), round(high, 3)]}
        print(json.dumps(result))


if __name__ == "__main__":
    main()
