"""Small real models for adapter tests: the tiny UNet, and one attention block with a convolution before it."""

from functools import cache

import torch
from torch import Tensor, nn

from lorakiln.adapters.inject import inject
from lorakiln.adapters.network import Network
from lorakiln.adapters.spec import AdapterSpec
from lorakiln.families.sdxl import keys
from lorakiln.families.sdxl.load import build
from lorakiln.families.sdxl.source import CONFIG_NAME, shipped
from tests.tiny import tiny_config

CONFIG = tiny_config("unet") | {"layers_per_block": 1, "transformer_layers_per_block": [1, 1, 1]}


@cache
def tiny_unet(seed: int = 0) -> nn.Module:
    """The tiny SDXL UNet, frozen, in eval mode; built once: a test takes its adapters off again."""
    torch.manual_seed(seed)
    unet = build("unet", CONFIG).to_empty(device="cpu")
    for name, tensor in unet.named_parameters():
        nn.init.normal_(tensor, std=0.2 if tensor.dim() > 1 else 0.05)
        if "norm" in name and name.endswith("weight"):
            tensor.data += 1
    return unet.requires_grad_(False).eval()


def unet_names(conv: bool = True) -> dict[str, dict[str, str]]:
    """kohya's names of the tiny UNet's layers."""
    return {"unet": keys.kohya_names("unet", tiny_unet(), CONFIG, conv=conv)}


def meta_sdxl(part: str) -> tuple[nn.Module, dict[str, str]]:
    """A part of true SDXL without memory, and its kohya names with convolutions."""
    config = shipped(CONFIG_NAME[part])
    with torch.device("meta"):
        module = build(part, config)
    return module, keys.kohya_names(part, module, config, conv=True)


def unet_inputs(batch: int = 2, size: int = 8) -> dict:
    """One forward's arguments for the tiny UNet."""
    rng = torch.Generator().manual_seed(5)
    pooled = CONFIG["projection_class_embeddings_input_dim"] - 6 * CONFIG["addition_time_embed_dim"]
    return {
        "sample": torch.randn(batch, 4, size, size, generator=rng),
        "timestep": torch.tensor([10, 700, 30, 999][:batch]),
        "encoder_hidden_states": torch.randn(batch, 7, CONFIG["cross_attention_dim"], generator=rng),
        "added_cond_kwargs": {
            "text_embeds": torch.randn(batch, pooled, generator=rng),
            "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]]).expand(batch, 6),
        },
    }


def predict(unet: nn.Module) -> Tensor:
    return unet(**unet_inputs(), return_dict=False)[0]


def on_layer(
    layer: nn.Linear | nn.Conv2d, spec: AdapterSpec, seed: int = 3, std: float = 0.2
) -> tuple[nn.Module, Network]:
    """A module that only holds `layer`, and an adapter on it whose tensors are all random: (holder, network)."""
    holder = nn.Module()
    holder.layer = layer.requires_grad_(False)
    network = inject({"unet": holder}, {"unet": {"layer": "lora_unet_layer"}}, spec, seed)
    stir(network, std)
    return holder, network


@torch.no_grad()
def stir(network: Network, std: float = 0.05, seed: int = 9) -> Network:
    """Move every trained tensor off its start, so that none of them is zero."""
    rng = torch.Generator().manual_seed(seed)
    for trained in network.trained():
        parameter = trained.parameter
        parameter += torch.randn(parameter.shape, generator=rng, dtype=parameter.dtype) * std
    network.refresh()
    return network
