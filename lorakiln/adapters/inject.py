"""Putting adapters on a frozen model: new ones from a spec, or those of a file."""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lorakiln.adapters import loha, lokr, lora  # noqa: F401  (fills the table of kinds)
from lorakiln.adapters.network import Network
from lorakiln.adapters.part import Adapter, Width, kinds
from lorakiln.adapters.place import Place
from lorakiln.adapters.spec import AdapterSpec
from lorakiln.adapters.targets import choose, left_out
from lorakiln.base.chance import key
from lorakiln.base.errors import UserError

OUTPUT_AXIS = (
    'adapter.dora_axis = "output": ComfyUI divides by the norm of the base alone and will not apply the file as it was '
    'trained; "input" is applied the same everywhere'
)
Parts = Mapping[str, nn.Module]
Names = Mapping[str, Mapping[str, str]]


def inject(parts: Parts, names: Names, spec: AdapterSpec, seed: int) -> Network:
    """Put fresh adapters, which change nothing yet, on the layers that `spec` names.

    `parts` maps "unet", "te1", "te2" to frozen modules (those to be trained only); `names` maps each part's module
    paths to kohya's names. The first values depend on the seed and a layer's name alone, not on the order or on what
    else is trained. Raises UserError for a pattern that matches nothing.
    """
    adapters = []
    for place, rank, alpha in choose(parts, names, spec):
        rng = torch.Generator().manual_seed(key(seed, f"init {place.name}"))
        width = Width(rank, spec.scale(rank, alpha))
        adapters.append(kinds[spec.kind].create(place, width, spec, rng))
    if spec.dora and spec.dora_axis == "output":
        warnings.warn(OUTPUT_AXIS, UserWarning, stacklevel=2)
    network = Network(adapters, spec, seed, parts.values())
    network.notes += [*_left_out(parts, names, spec), *kinds[spec.kind].notes(adapters, spec)]
    return network


def _left_out(parts: Parts, names: Names, spec: AdapterSpec) -> list[str]:
    silent = left_out(parts, names, spec) if spec.targets else []
    if not silent:
        return []
    return [
        f"adapter.conv_rank = 0: {len(silent)} convolutions that adapter.targets names get no adapter, "
        f"{silent[0]} for one"
    ]


def inject_file(parts: Parts, names: Names, tensors: Mapping[str, Tensor]) -> Network:
    """Put a file's adapters on the model: kinds, ranks and scales are read from its tensors (kohya's names).

    Modules of a part that `parts` lacks are left out. Raises UserError for a file of another model family.
    """
    places = {
        names[part][path]: Place(part, path, names[part][path], module)
        for part, root in parts.items()
        for path, module in root.named_modules()
        if path in names[part] and isinstance(module, nn.Linear | nn.Conv2d)
    }
    absent = {name for part in names if part not in parts for name in names[part].values()}
    modules = by_module(tensors)
    unknown = sorted(set(modules) - set(places) - absent)
    if unknown:
        count = f"{len(unknown)} of {len(modules)} unknown"
        raise UserError(f"not a LoRA of this model family: the base has no layer {unknown[0]} ({count})")
    adapters = [
        kind_of(name, held).from_tensors(places[name], held) for name, held in modules.items() if name in places
    ]
    if not adapters:
        raise UserError(f"this LoRA changes none of {', '.join(parts)}")
    return Network(adapters, roots=parts.values())


def kind_of(name: str, tensors: Mapping[str, Tensor]) -> type[Adapter]:
    """The kind of adapter whose suffixes `tensors` has. Raises UserError where there is none."""
    for kind in kinds:
        if kinds[kind].recognises(frozenset(tensors)):
            return kinds[kind]
    raise UserError(f"{name}: unknown kind of adapter ({', '.join(sorted(tensors))})")


def by_module(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Module name -> suffix -> tensor; kohya's module names hold no dot."""
    modules: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        module, _, suffix = name.partition(".")
        modules.setdefault(module, {})[suffix] = tensor
    return modules
