"""Every kind of adapter against the reference code, with the same weights in fp64: lycoris-lora 4.1.3 and peft 0.21.2.

Differences on purpose:
- LyCORIS adds the machine epsilon to DoRA's norm and backpropagates through it; here the norm is what it is, and a
  constant, as in the paper. Only its forward is compared, and 1e-5 is far above an epsilon of fp64.
- LyCORIS scales W + delta by 1 + t (c - 1) at strength t; here, as in ComfyUI, the result is W + t (W_dora - W).
- With rank-stabilised scaling LyCORIS multiplies a LoKr whose halves are both whole by sqrt(rank); here that is 1.
"""

import warnings

import pytest
import torch
from torch import nn

from lorakiln.adapters.spec import AdapterSpec
from tests.adapters.models import on_layer

LAYERS = {
    "linear": (lambda: nn.Linear(10, 6), (10,)),
    "odd linear": (lambda: nn.Linear(7, 15, bias=False), (5, 7)),
    "conv": (lambda: nn.Conv2d(6, 9, 3, padding=1), (6, 5, 7)),
    "strided conv": (lambda: nn.Conv2d(5, 4, 3, stride=2, bias=False), (5, 9, 6)),
    "1x1 conv": (lambda: nn.Conv2d(6, 4, 1), (6, 3, 5)),
}
BASE = {"rank": 3, "alpha": 1.5, "conv_rank": 2, "conv_alpha": 3.0, "targets": ("*",)}
SPECS = {
    "lora": AdapterSpec(**BASE),
    "lora rank-stabilised": AdapterSpec(**BASE, rank_stabilised=True),
    "lora tucker": AdapterSpec(**BASE, tucker=True),
    "loha": AdapterSpec(kind="loha", **BASE),
    "loha tucker": AdapterSpec(kind="loha", **BASE, tucker=True),
    "lokr": AdapterSpec(kind="lokr", **BASE | {"rank": 1, "conv_rank": 1}),
    "lokr factor": AdapterSpec(kind="lokr", **BASE | {"rank": 1, "conv_rank": 1}, factor=2),
    "lokr tucker": AdapterSpec(kind="lokr", **BASE | {"rank": 1, "conv_rank": 1}, tucker=True, factor=2),
    "lokr full matrix": AdapterSpec(kind="lokr", **BASE, full_matrix=True),
    "lokr decomposed": AdapterSpec(kind="lokr", **BASE | {"rank": 1, "conv_rank": 1}, decompose_both=True, factor=3),
}


def with_dora(spec, axis):
    return AdapterSpec(**{name: getattr(spec, name) for name in spec.__slots__} | {"dora": True, "dora_axis": axis})


def ours(layer_name, spec, batch):
    torch.manual_seed(0)
    build, shape = LAYERS[layer_name]
    layer = build().double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the output axis warns
        holder, network = on_layer(layer, spec)
    return holder, network, torch.randn(batch, *shape, dtype=torch.float64, requires_grad=True)


def lycoris(network, spec):
    """LyCORIS's module on a copy of the layer, with our tensors."""
    from lycoris.modules.locon import LoConModule
    from lycoris.modules.loha import LohaModule
    from lycoris.modules.lokr import LokrModule

    (adapter,) = network.adapters
    place, saved = adapter.place, adapter.state()
    layer = type(place.layer)(*_arguments(place.layer)).double()
    layer.load_state_dict(place.layer.state_dict())
    kind = {"lora": LoConModule, "loha": LohaModule, "lokr": LokrModule}[spec.kind]
    rank, alpha = spec.width(place.name, place.path, spatial=place.spatial)
    module = kind(
        "x", layer, 1.0, rank, alpha, use_tucker=spec.tucker, weight_decompose=spec.dora,
        wd_on_out=spec.dora_axis == "output", rs_lora=spec.rank_stabilised,
        **{name: getattr(spec, name) for name in ("factor", "full_matrix", "decompose_both") if spec.kind == "lokr"},
    ).double()  # fmt: skip
    missing, unexpected = module.load_state_dict(saved, strict=False)
    assert not unexpected and not [name for name in missing if name != "scalar"]
    assert module.alpha.item() == pytest.approx(saved["alpha"].item())
    return module, layer


def _arguments(layer):
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features, layer.bias is not None
    return (
        layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation, 1,
        layer.bias is not None,
    )  # fmt: skip


def close(mine, theirs):
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", SPECS)
def test_forward_and_gradients_equal_lycoris(name, layer, batch):
    holder, network, x = ours(layer, SPECS[name], batch)
    module, _ = lycoris(network, SPECS[name])
    mine, theirs = holder.layer(x), module(x)
    close(mine, theirs)
    tensors = network.adapters[0].tensors
    named = dict(module.named_parameters())
    dy = torch.randn_like(mine)
    gradients = torch.autograd.grad(mine, [x, *tensors.values()], dy)
    expected = torch.autograd.grad(theirs, [x, *(named[suffix] for suffix in tensors)], dy)
    for gradient, right in zip(gradients, expected, strict=True):
        close(gradient, right)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("axis", ["input", "output"])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", SPECS)
def test_dora_forward_equals_lycoris(name, layer, axis, batch):
    spec = with_dora(SPECS[name], axis)
    holder, network, x = ours(layer, spec, batch)
    module, _ = lycoris(network, spec)
    assert network.adapters[0].state()["dora_scale"].shape == module.dora_scale.shape
    close(holder.layer(x), module(x))


@pytest.mark.parametrize("axis", ["input", "output"])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", [*SPECS])
def test_gradients_equal_finite_differences(name, layer, axis):
    """With DoRA the norm is a constant: it is held where it is while the tensors are moved."""
    for spec in (SPECS[name], with_dora(SPECS[name], axis)) if axis == "input" else (with_dora(SPECS[name], axis),):
        holder, network, x = ours(layer, spec, 1)
        tensors = [*network.adapters[0].tensors.values()]
        assert torch.autograd.gradcheck(lambda *_: holder.layer(x), (x, *tensors), fast_mode=True)  # noqa: B023


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True}], ids=str)
def test_forward_and_gradients_equal_peft(layer, options, batch):
    from peft import LoraConfig, inject_adapter_in_model

    dora = options.get("use_dora", False)
    spec = AdapterSpec(
        rank=3, alpha=1.5, conv_rank=3, conv_alpha=1.5, targets=("*",), rank_stabilised="use_rslora" in options,
        dora=dora, dora_axis="output" if dora else "input",
    )  # fmt: skip
    holder, network, x = ours(layer, spec, batch)
    tensors = network.adapters[0].tensors
    source = holder.layer
    copy = type(source)(*_arguments(source)).double()
    copy.load_state_dict(source.state_dict())
    peer = inject_adapter_in_model(
        LoraConfig(r=3, lora_alpha=1.5, target_modules=["layer"], **options), nn.ModuleDict({"layer": copy})
    )
    peer = peer.double()["layer"]
    theirs = {"lora_down.weight": peer.lora_A["default"].weight, "lora_up.weight": peer.lora_B["default"].weight}
    if dora:
        theirs["dora_scale"] = peer.lora_magnitude_vector["default"].weight
    with torch.no_grad():
        for suffix, tensor in theirs.items():
            tensor.copy_(tensors[suffix].reshape(tensor.shape))
    mine, right = holder.layer(x), peer(x)
    close(mine, right)
    dy = torch.randn_like(mine)
    gradients = torch.autograd.grad(mine, [x, *(tensors[suffix] for suffix in theirs)], dy)
    for gradient, expected in zip(gradients, torch.autograd.grad(right, [x, *theirs.values()], dy), strict=True):
        close(gradient, expected.reshape(gradient.shape))
