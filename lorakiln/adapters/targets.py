"""Which layers get an adapter: kohya's default sets, or those that the user's patterns name."""

from collections.abc import Mapping

from torch import nn

from lorakiln.adapters.place import Place
from lorakiln.adapters.spec import AdapterSpec, matches
from lorakiln.base.errors import UserError

# by class name: importing the classes would load diffusers and transformers
ATTENTION = {"unet": {"Transformer2DModel"}, "te1": {"CLIPAttention", "CLIPMLP"}, "te2": {"CLIPAttention", "CLIPMLP"}}
CONVOLUTION = {"unet": {"ResnetBlock2D", "Downsample2D", "Upsample2D"}}


def choose(
    parts: Mapping[str, nn.Module], names: Mapping[str, Mapping[str, str]], spec: AdapterSpec
) -> list[tuple[Place, int, float]]:
    """(place, rank, alpha) of every layer that gets an adapter, in the order of the modules.

    Without `spec.targets`: kohya's sets (sd-scripts, networks/lora.py) - the transformers of the UNet and of the text
    encoders, and with `conv_rank` the UNet's resnets and samplers too. Raises UserError for a pattern without a layer.
    """
    chosen = []
    unused = set(spec.targets) | set(spec.exclude) | {rule.pattern for rule in spec.ranks}
    for part, root in parts.items():
        default = set() if spec.targets else _default(part, root, conv=spec.conv_rank > 0)
        assert default <= set(names[part]), f"{part}: no kohya name for {min(default - set(names[part]))}"
        for path, module in root.named_modules():
            if path not in names[part] or not isinstance(module, nn.Linear | nn.Conv2d):
                continue
            name = names[part][path]
            unused = {pattern for pattern in unused if not matches(name, path, (pattern,))}
            wanted = matches(name, path, spec.targets) if spec.targets else path in default
            if not wanted or matches(name, path, spec.exclude):
                continue
            place = Place(part, path, name, module)
            rank, alpha = spec.width(name, path, spatial=place.spatial)
            if rank:
                chosen.append((place, rank, alpha))
    if unused:
        raise UserError(f"adapter: the pattern '{min(unused)}' matches no layer of {', '.join(parts)}")
    if not chosen:
        raise UserError("adapter: no layer is left to train; see targets, exclude and ranks")
    return chosen


def _default(part: str, root: nn.Module, *, conv: bool) -> set[str]:
    homes = ATTENTION[part] | (CONVOLUTION.get(part, set()) if conv else set())
    found = set()
    for home, module in root.named_modules():
        if type(module).__name__ in homes:
            for path, layer in module.named_modules():
                # without conv_rank a kernel above 1x1 has no width, inside a transformer neither
                if isinstance(layer, nn.Linear | nn.Conv2d) and (conv or not _spatial(layer)):
                    found.add(f"{home}.{path}" if path else home)
    return found


def _spatial(layer: nn.Linear | nn.Conv2d) -> bool:
    return isinstance(layer, nn.Conv2d) and max(layer.kernel_size) > 1
