"""Every layer of an SDXL-shaped base with its sizes, from its configuration alone; what estimates are counted on."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

PROMPT = 77  # tokens that the UNet reads of a caption of up to 75


@dataclass(frozen=True, slots=True)
class Layer:
    """A linear layer or convolution: channels in and out, kernel side, and how many places it works on.

    `target` says who adapts it: kohya's linear default, its conv_dim, or nobody. `kind` "conv3" has a kernel above 1.
    """

    inside: int
    outside: int
    places: int
    kernel: int = 1
    target: Literal["linear", "conv", ""] = ""
    spatial: bool = False  # a convolution with a kernel above 1x1, which conv_rank widens

    @property
    def weights(self) -> int:
        return self.inside * self.outside * self.kernel**2

    @property
    def flops(self) -> int:
        """Of one forward pass; a backward pass to its input costs the same."""
        return 2 * self.weights * self.places


@dataclass(frozen=True, slots=True)
class Attention:
    """Scaled dot products of `queries` with `keys` tokens over `width` channels."""

    queries: int
    keys: int
    width: int

    @property
    def flops(self) -> int:
        return 4 * self.queries * self.keys * self.width


@dataclass(frozen=True, slots=True)
class Unit:
    """A stretch that checkpointing recomputes as one (a resnet or a transformer block), or a layer outside any.

    Numbers in values (not bytes) for one picture: `given` is its input, `kept` all that backward needs of it.
    """

    layers: tuple[Layer, ...]
    attention: tuple[Attention, ...]
    given: int
    kept: int
    recomputed: bool = True


def unet(config: dict[str, Any], width: int, height: int) -> list[Unit]:
    """The units of the UNet in order, for latents of `width` x `height`."""
    return list(_Walk(config, width, height).units())


class _Walk:
    """Follows the channels and sizes through the UNet, as diffusers' UNet2DConditionModel does."""

    def __init__(self, config: dict[str, Any], width: int, height: int):
        self.config = config
        self.channels: list[int] = config["block_out_channels"]
        self.sizes = [(width, height)]
        for _ in self.channels[1:]:  # a downsampler rounds up
            self.sizes.append((-(-self.sizes[-1][0] // 2), -(-self.sizes[-1][1] // 2)))
        self.embedding = 4 * self.channels[0]
        self.cross = config["cross_attention_dim"]
        depth = config["transformer_layers_per_block"]
        self.depth = [depth] * len(self.channels) if isinstance(depth, int) else depth
        self.down = [kind.startswith("CrossAttn") for kind in config["down_block_types"]]

    def places(self, level: int) -> int:
        return self.sizes[level][0] * self.sizes[level][1]

    def units(self) -> Iterator[Unit]:
        first, last = self.channels[0], len(self.channels) - 1
        yield self._plain(Layer(self.config["in_channels"], first, self.places(0), 3, spatial=True), 0)
        skips, now, layers = [first], first, self.config["layers_per_block"]
        for level, out in enumerate(self.channels):
            for _ in range(layers):
                yield from self._stage(now, out, level, self.depth[level] if self.down[level] else 0)
                now = out
                skips.append(out)
            if level < last:
                yield self._sampler(out, self.places(level), self.places(level + 1))
                skips.append(out)
        yield self._resnet(now, now, last)
        yield from self._transformer(now, last, self.depth[last])
        yield self._resnet(now, now, last)
        for level in range(last, -1, -1):
            for _ in range(layers + 1):
                out = self.channels[level]
                yield from self._stage(now + skips.pop(), out, level, self.depth[level] if self.down[level] else 0)
                now = out
            if level:
                yield self._sampler(now, self.places(level - 1), self.places(level - 1))
        places = self.places(0)
        end = Layer(now, self.config["out_channels"], places, 3, spatial=True)
        # the last norm keeps its input, the activation its own, the convolution what it is given
        yield Unit((end,), (), now * places, 3 * now * places, recomputed=False)

    def _plain(self, layer: Layer, kept: int) -> Unit:
        return Unit((layer,), (), layer.inside * layer.places, kept, recomputed=False)

    def _sampler(self, width: int, places_in: int, places_out: int) -> Unit:
        layer = Layer(width, width, places_out, 3, "conv", spatial=True)
        return Unit((layer,), (), width * places_in, width * places_in, recomputed=False)

    def _stage(self, inside: int, out: int, level: int, depth: int) -> Iterator[Unit]:
        yield self._resnet(inside, out, level)
        if depth:
            yield from self._transformer(out, level, depth)

    def _resnet(self, inside: int, out: int, level: int) -> Unit:
        places = self.places(level)
        layers = [
            Layer(inside, out, places, 3, "conv", spatial=True),
            Layer(self.embedding, out, 1, 1, "conv"),
            Layer(out, out, places, 3, "conv", spatial=True),
        ]
        if inside != out:
            layers.append(Layer(inside, out, places, 1, "conv"))
        # norm in, activation in, convolution in; the same again for the second half
        kept = 3 * inside * places + 3 * out * places
        return Unit(tuple(layers), (), inside * places, kept)

    def _transformer(self, width: int, level: int, depth: int) -> Iterator[Unit]:
        places = self.places(level)
        ends = [Layer(width, width, places, 1, "linear")]
        # the norm's input, what proj_in reads and makes
        yield Unit(tuple(ends), (), width * places, 2 * width * places, recomputed=False)
        for _ in range(depth):
            yield self._block(width, places)
        yield Unit(tuple(ends), (), width * places, width * places, recomputed=False)

    def _block(self, width: int, places: int) -> Unit:
        own = [Layer(width, width, places, 1, "linear") for _ in range(6)]  # to_q, k, v, out, and q, out of the second
        text = [Layer(self.cross, width, PROMPT, 1, "linear") for _ in range(2)]
        ff = [Layer(width, 8 * width, places, 1, "linear"), Layer(4 * width, width, places, 1, "linear")]
        attention = (Attention(places, places, width), Attention(places, PROMPT, width))
        stream = width * places
        # three norms in and out; q, k, v and the result; q and the result; both halves, the gate, their product
        kept = 6 * stream + 4 * stream + 2 * stream + 16 * stream + 2 * PROMPT * width
        return Unit((*own, *text, *ff), attention, stream, kept)


def text_layers(config: dict[str, Any], tokens: int = PROMPT) -> list[Layer]:
    """The linear layers of one CLIP text encoder."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    block = [Layer(width, width, tokens, 1, "linear")] * 4
    block += [Layer(width, inner, tokens, 1, "linear"), Layer(inner, width, tokens, 1, "linear")]
    return block * config["num_hidden_layers"]


def text_weights(config: dict[str, Any]) -> int:
    """Parameters of one CLIP text encoder: tables, layers with their biases and norms, projection."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    tables = (config["vocab_size"] + config["max_position_embeddings"]) * width
    layer = 4 * width * (width + 1) + width * (inner + 1) + inner * (width + 1) + 4 * width
    projection = config["projection_dim"] * width if "WithProjection" in str(config.get("architectures")) else 0
    return tables + layer * config["num_hidden_layers"] + 2 * width + projection


def unet_weights(config: dict[str, Any]) -> int:
    """Parameters of the UNet, biases and norms included."""
    total = 0
    for unit in unet(config, 8, 8):
        for layer in unit.layers:
            total += layer.weights
        total += _small(unit)
    first, inner = config["block_out_channels"][0], 4 * config["block_out_channels"][0]
    added = config["projection_class_embeddings_input_dim"]
    for inside, outside in ((first, inner), (inner, inner), (added, inner), (inner, inner)):
        total += (inside + 1) * outside
    return total


def _small(unit: Unit) -> int:
    """Biases and norms of a unit: what has no places of its own."""
    first = unit.layers[0]
    if unit.attention:  # three norms, biases of two outputs and of the two feed-forward layers
        width = first.inside
        return 6 * width + 2 * width + 8 * width + width
    if unit.recomputed:  # two norms and a bias for every layer
        return 2 * first.inside + 2 * first.outside + sum(layer.outside for layer in unit.layers)
    return first.outside


def transformer_norms(config: dict[str, Any]) -> int:
    """Group norms before each transformer and at the end, which no unit above counts."""
    walk = _Walk(config, 8, 8)
    layers = config["layers_per_block"]
    total = 2 * config["block_out_channels"][0] + 2 * config["block_out_channels"][-1]
    for level, width in enumerate(config["block_out_channels"]):
        if walk.down[level]:
            total += (2 * layers + 1) * 2 * width
    return total
