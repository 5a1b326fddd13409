"""Which layers get an adapter: kohya's default sets, or those that the user's patterns name."""

from collections.abc import Iterator, Mapping

from torch import nn

from lorakiln.adapters.place import Place
from lorakiln.adapters.spec import AdapterSpec, matches
from lorakiln.base.errors import UserError

# by class name: importing the classes would load diffusers and transformers
ATTENTION = {"unet": {"Transformer2DModel"}, "te1": {"CLIPAttention", "CLIPMLP"}, "te2": {"CLIPAttention", "CLIPMLP"}}
CONVOLUTION = {"unet": {"ResnetBlock2D", "Downsample2D", "Upsample2D"}}


Parts = Mapping[str, nn.Module]
Names = Mapping[str, Mapping[str, str]]
Layer = nn.Linear | nn.Conv2d


def choose(parts: Parts, names: Names, spec: AdapterSpec) -> list[tuple[Place, int, float]]:
    """(place, rank, alpha) of every layer that gets an adapter, in the order of the modules.

    Without `spec.targets`: kohya's sets (sd-scripts, networks/lora.py) - the transformers of the UNet and of the text
    encoders, and with `conv_rank` the UNet's resnets and samplers too. Raises UserError for a pattern without effect.
    """
    chosen = []
    unused = [("targets", pattern) for pattern in spec.targets] + [("exclude", pattern) for pattern in spec.exclude]
    unused += [("ranks", rule.pattern) for rule in spec.ranks]
    for part, path, name, layer in _wanted(parts, names, spec):
        rank, alpha = spec.width(name, path, spatial=_spatial(layer))
        if _has_no_width(spec, layer, rank):
            continue
        excluded = matches(name, path, spec.exclude)
        heard = ("targets", "exclude") if excluded else ("targets", "ranks")
        unused = [(key, one) for key, one in unused if key not in heard or not matches(name, path, (one,))]
        if rank and not excluded:
            chosen.append((Place(part, path, name, layer), rank, alpha))
    for key, pattern in unused:
        raise UserError(f"adapter.{key}: the pattern '{pattern}' matches {_what(key, pattern, parts, names)}")
    if not chosen:
        raise UserError("adapter: no layer is left to train; see targets, exclude and ranks")
    return chosen


def left_out(parts: Parts, names: Names, spec: AdapterSpec) -> list[str]:
    """kohya's names of the convolutions that `spec.targets` names and that no setting gives a rank."""
    return [
        name
        for _, path, name, layer in _wanted(parts, names, spec)
        if not matches(name, path, spec.exclude)
        and not any(matches(name, path, (rule.pattern,)) for rule in spec.ranks)
        and _has_no_width(spec, layer, 0)
    ]


def _wanted(parts: Parts, names: Names, spec: AdapterSpec) -> Iterator[tuple[str, str, str, Layer]]:
    """(part, path, kohya's name, layer) of what the targets name, before anything of it is left out."""
    for part, root in parts.items():
        default = set() if spec.targets else _default(part, root, conv=spec.conv_rank > 0)
        assert default <= set(names[part]), f"{part}: no kohya name for {min(default - set(names[part]))}"
        for path, layer in root.named_modules():
            if path in names[part] and isinstance(layer, Layer):
                name = names[part][path]
                if matches(name, path, spec.targets) if spec.targets else path in default:
                    yield part, path, name, layer


def _has_no_width(spec: AdapterSpec, layer: Layer, rank: int) -> bool:
    """Whether it is a convolution beyond 1x1 to which neither `conv_rank` nor a rule gives a rank."""
    return _spatial(layer) and not spec.conv_rank and not rank


def _what(key: str, pattern: str, parts: Parts, names: Names) -> str:
    """What a pattern matches that does nothing."""
    if not any(matches(name, path, (pattern,)) for part in parts for path, name in names[part].items()):
        return f"no layer of {', '.join(parts)}"
    if key == "targets":
        return "only convolutions, which need a rank of their own: conv_rank"
    return "only layers that are not trained anyway"


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


def _spatial(layer: Layer) -> bool:
    return isinstance(layer, nn.Conv2d) and max(layer.kernel_size) > 1
