"""DoRA: closed-form norms are the real ones, strength means what other programs do, and files say which axis."""

import warnings

import pytest
import torch
from torch import nn

from lorakiln.adapters.inject import inject, inject_file
from lorakiln.adapters.norms import Norms
from lorakiln.adapters.spec import AdapterSpec
from lorakiln.base.errors import UserError
from lorakiln.optim.flat import FlatParameters
from lorakiln.optim.optimizers import optimizers
from tests.adapters.models import on_layer, predict, stir, tiny_unet, unet_names

KINDS = [
    AdapterSpec(rank=3, alpha=2, conv_rank=2, conv_alpha=3, targets=("*",), dora=True),
    AdapterSpec(rank=3, alpha=2, conv_rank=2, conv_alpha=3, targets=("*",), dora=True, dora_axis="output"),
    AdapterSpec(rank=3, alpha=2, conv_rank=2, conv_alpha=3, targets=("*",), dora=True, tucker=True),
    AdapterSpec(kind="loha", rank=3, alpha=2, conv_rank=2, targets=("*",), dora=True),
    AdapterSpec(kind="lokr", rank=1, alpha=2, conv_rank=1, factor=2, targets=("*",), dora=True),
]
LAYERS = [lambda: nn.Linear(10, 6), lambda: nn.Conv2d(6, 10, 3, padding=1)]
INPUTS = [(3, 10), (2, 6, 5, 4)]

pytestmark = pytest.mark.filterwarnings("ignore:adapter.dora_axis")


def name_of(spec):
    return f"{spec.kind}{' tucker' if spec.tucker else ''} {spec.dora_axis}"


@pytest.fixture(params=KINDS, ids=name_of)
def spec(request):
    return request.param


def recomposed_norm(adapter):
    """|W + delta| with nothing clever."""
    total = adapter.place.weight.double() + adapter.delta(adapter.tensors).double()
    return total.square().sum(adapter.magnitude.summed, keepdim=True).sqrt()


def test_closed_form_norms_of_a_whole_network_are_the_recomposed_ones(spec):
    network = inject({"unet": tiny_unet()}, unet_names(), spec, 0)
    stir(network, std=0.1)
    for adapter in network.adapters:
        torch.testing.assert_close(1 / adapter.magnitude.inverse.double(), recomposed_norm(adapter), rtol=2e-6, atol=0)
    network.remove()


@pytest.mark.parametrize("order", [1, -1], ids=["in order", "backwards"])
def test_norms_of_weights_in_a_flat_buffer(order):
    """Side by side in one buffer they are read without a copy, but only in the order in which they lie."""
    network = inject({"unet": tiny_unet()}, unet_names(), AdapterSpec(rank=2, dora=True), 0)
    FlatParameters({"all": [trained.parameter for trained in network.trained()][::order]})
    stir(network, std=0.1)
    for adapter in network.adapters:
        torch.testing.assert_close(1 / adapter.magnitude.inverse.double(), recomposed_norm(adapter), rtol=2e-6, atol=0)
    network.remove()


def test_a_half_precision_base_still_has_fp32_norms():
    holder, network = on_layer(nn.Linear(40, 30).bfloat16(), KINDS[0])
    (adapter,) = network.adapters
    assert adapter.magnitude.inverse.dtype == torch.float32
    torch.testing.assert_close(1 / adapter.magnitude.inverse.double(), recomposed_norm(adapter), rtol=2e-6, atol=0)
    assert holder.layer(torch.randn(2, 40).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [0, 1], ids=["linear", "conv"])
def test_beside_a_half_precision_base_everything_trained_is_fp32(spec, shape):
    """Fresh, continued from bf16 values, and put on from a bf16 file: so no step is ever rounded to bf16."""
    holder, network = on_layer(LAYERS[shape]().bfloat16(), spec)
    values = {name: tensor.bfloat16() for name, tensor in network.state_dict().items()}
    network.load_state_dict(values)
    assert {trained.parameter.dtype for trained in network.trained()} == {torch.float32}
    network.remove()
    again = inject_file({"unet": holder}, {"unet": {"layer": "lora_unet_layer"}}, values)
    assert {trained.parameter.dtype for trained in again.trained()} == {torch.float32}
    assert {adapter.magnitude.inverse.dtype for adapter in again.adapters} == {torch.float32}


def test_fresh_dora_changes_nothing(spec):
    with torch.no_grad():
        before = predict(tiny_unet())
        network = inject({"unet": tiny_unet()}, unet_names(), spec, 0)
        torch.testing.assert_close(predict(tiny_unet()), before, rtol=1e-4, atol=1e-4)
        network.remove()


def comfyui(weight, delta, dora_scale, strength):
    """How ComfyUI applies dora_scale (comfy/weight_adapter/base.py, weight_decompose), restated."""
    changed = weight + delta
    if dora_scale.shape[0] == changed.shape[0]:
        norm = weight.reshape(len(weight), -1).norm(dim=1, keepdim=True).reshape(-1, *[1] * (weight.dim() - 1))
    else:
        by_input = changed.transpose(0, 1)
        norm = by_input.reshape(len(by_input), -1).norm(dim=1, keepdim=True)
        norm = norm.reshape(-1, *[1] * (weight.dim() - 1)).transpose(0, 1)
    changed = changed * (dora_scale / (norm + torch.finfo(weight.dtype).eps))
    return weight + strength * (changed - weight)


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("shape", [0, 1], ids=["linear", "conv"])
def test_comfyui_applies_the_file_as_it_was_trained(spec, shape, strength):
    torch.manual_seed(0)
    holder, network = on_layer(LAYERS[shape]().double(), spec)
    (adapter,) = network.adapters
    with torch.no_grad():
        adapter.tensors["dora_scale"] *= 1.2
    network.strength = strength
    x = torch.randn(INPUTS[shape], dtype=torch.float64)
    tensors = {suffix: tensor.detach() for suffix, tensor in adapter.tensors.items()}
    weight = comfyui(adapter.place.weight, adapter.delta(tensors), tensors["dora_scale"], strength)
    applied = adapter.place.product(x, weight, adapter.place.layer.bias)
    if spec.dora_axis == "input":
        torch.testing.assert_close(holder.layer(x), applied, rtol=1e-7, atol=1e-9)
    else:  # what the warning is about
        assert not torch.allclose(holder.layer(x), applied, rtol=1e-3)


def test_the_output_axis_warns_and_the_input_axis_does_not():
    holder = nn.Module()
    holder.layer = nn.Linear(4, 4)
    with pytest.warns(UserWarning, match="ComfyUI divides by the norm of the base alone"):
        inject({"unet": holder}, {"unet": {"layer": "lora_unet_layer"}}, KINDS[1], 0).remove()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inject({"unet": holder}, {"unet": {"layer": "lora_unet_layer"}}, KINDS[0], 0).remove()


@pytest.mark.parametrize("strength", [0.3, 1.0, 1.7])
@pytest.mark.parametrize("shape", [0, 1], ids=["linear", "conv"])
def test_strength_blends_the_weights(spec, shape, strength):
    torch.manual_seed(0)
    holder, network = on_layer(LAYERS[shape]().double(), spec)
    x = torch.randn(INPUTS[shape], dtype=torch.float64)
    network.strength = 1
    full = holder.layer(x)
    network.strength = strength
    base = network.adapters[0].base(x)
    torch.testing.assert_close(holder.layer(x), base + strength * (full - base))


@pytest.mark.parametrize("shape", [0, 1], ids=["linear", "conv"])
def test_gradients_at_another_strength_are_right_too(spec, shape):
    torch.manual_seed(0)
    holder, network = on_layer(LAYERS[shape]().double(), spec)
    network.strength = 0.6
    x = torch.randn(INPUTS[shape], dtype=torch.float64, requires_grad=True)
    tensors = (x, *network.adapters[0].tensors.values())
    assert torch.autograd.gradcheck(lambda *_: holder.layer(x), tensors, fast_mode=True)


def test_norms_are_taken_before_each_forward_unless_the_loop_keeps_the_pace(monkeypatch):
    taken, real = [], Norms.refresh
    monkeypatch.setattr(Norms, "refresh", lambda norms: (taken.append(1), real(norms)))
    network = inject({"unet": tiny_unet()}, unet_names(), AdapterSpec(rank=2, dora=True), 0)
    assert len(taken) == 1
    with torch.no_grad():
        predict(tiny_unet())
        predict(tiny_unet())
        assert len(taken) == 3
        for step in range(2):  # two micro-batches a step: once a step
            for micro in range(2):
                network.begin(step, micro)
                predict(tiny_unet())
        assert len(taken) == 5
        network.rest()
        assert len(taken) == 6
    network.remove()
    with torch.no_grad():
        predict(tiny_unet())
    assert len(taken) == 6, "the hook stayed behind"


def test_a_step_through_a_flat_buffer_is_seen(monkeypatch):
    """An optimizer may write to the weights behind autograd's back."""
    network = inject({"unet": tiny_unet()}, unet_names(), AdapterSpec(rank=2, dora=True), 0)
    buffer = torch.cat([trained.parameter.detach().flatten() for trained in network.trained()])
    start = 0
    for trained in network.trained():
        size = trained.parameter.numel()
        trained.parameter.data = buffer[start : start + size].view(trained.parameter.shape)
        start += size
    buffer += torch.randn(buffer.shape, generator=torch.Generator().manual_seed(0)) * 0.1
    with torch.no_grad():
        predict(tiny_unet())
    for adapter in network.adapters:
        torch.testing.assert_close(1 / adapter.magnitude.inverse.double(), recomposed_norm(adapter), rtol=2e-6, atol=0)
    network.remove()


def test_memory_that_is_used_again_serves_other_sizes_types_and_modes():
    """First in inference mode and then in training, by inputs that grow, shrink and change type between two passes."""
    passes = []
    for dtype, rows in ((torch.float32, 5), (torch.float64, 50), (torch.bfloat16, 3), (torch.float32, 7)):
        holder, network = on_layer(nn.Linear(10, 6).to(dtype), KINDS[0])
        x = torch.randn(rows, 10, dtype=dtype)
        with torch.inference_mode():
            holder.layer(x)
        passes.append((network.adapters[0], x.requires_grad_(), holder.layer(x)))
    for adapter, x, y in passes:
        weight = adapter.place.weight.double() + adapter.weight_change().double()
        right = nn.functional.linear(x.double(), weight, adapter.place.layer.bias.double())
        wanted = [x, *adapter.tensors.values()]
        theirs = torch.autograd.grad(right.sum(), wanted)
        loose = {"rtol": 0.05, "atol": 0.1} if x.dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-5}
        torch.testing.assert_close(y.double(), right, **loose)
        for mine, other in zip(torch.autograd.grad(y.sum(), wanted), theirs, strict=True):
            torch.testing.assert_close(mine, other, **loose)


def test_sampling_in_inference_mode_does_not_spoil_the_next_training_step():
    network = inject({"unet": tiny_unet()}, unet_names(), AdapterSpec(rank=2, dora=True), 0)
    with torch.inference_mode():
        predict(tiny_unet())
        network.rest()
    predict(tiny_unet()).sum().backward()
    network.remove()


@pytest.mark.parametrize("shape", [(1, 10), (6, 1)])
def test_a_file_says_by_its_shape_which_axis(shape):
    holder = nn.Module()
    holder.layer = nn.Linear(10, 6)
    tensors = {"lora_down.weight": torch.randn(2, 10), "lora_up.weight": torch.randn(6, 2), "alpha": torch.tensor(2.0)}
    state = {f"x.{suffix}": tensor for suffix, tensor in (tensors | {"dora_scale": torch.rand(shape) + 1}).items()}
    network = inject_file({"unet": holder}, {"unet": {"layer": "x"}}, state)
    assert network.adapters[0].magnitude.axis == ("input" if shape[0] == 1 else "output")
    network.remove()
    state["x.dora_scale"] = torch.ones(10, 6)
    with pytest.raises(UserError, match="fits neither axis"):
        inject_file({"unet": holder}, {"unet": {"layer": "x"}}, state)


def test_weight_decay_shrinks_magnitudes_as_it_does_in_lycoris_and_peft():
    """By lr x weight_decay a step where no gradient holds against it, and the weight itself with them."""
    _, network = on_layer(nn.Linear(10, 6), KINDS[0], std=0.0)
    flat = FlatParameters({"all": [trained.parameter for trained in network.trained()]})
    optimizer = optimizers["adamw"](flat, weight_decay=0.1)
    optimizer.set_lr({"all": 0.01})
    (adapter,) = network.adapters
    before = adapter.tensors["dora_scale"].detach().clone()
    for _ in range(3):
        optimizer.step()
    torch.testing.assert_close(adapter.tensors["dora_scale"].detach(), before * (1 - 0.001) ** 3)
    weight = adapter.place.weight
    torch.testing.assert_close(adapter.weight_change().detach(), weight * ((1 - 0.001) ** 3 - 1), rtol=1e-3, atol=1e-6)


def test_beside_a_bf16_base_a_magnitude_is_heard_from_a_tenth_of_a_percent_and_its_gradient_always():
    torch.manual_seed(0)
    holder, network = on_layer(nn.Linear(256, 64, bias=False).bfloat16(), KINDS[0], std=0.0)
    (adapter,) = network.adapters
    x, m = torch.randn(64, 256).bfloat16(), adapter.tensors["dora_scale"]
    start, first = m.detach().clone(), holder.layer(x).detach().float()
    heard = {}
    for step in (0.0005, 0.005):
        moved = torch.randn(1, 256) * step
        with torch.no_grad():
            m.copy_(start * (1 + moved))
        change = holder.layer(x).detach().float() - first
        right = (x.float() * moved) @ adapter.place.weight.float().t()
        heard[step] = ((change * right).sum() / right.square().sum()).item()
    assert heard[0.0005] < 0.05 and heard[0.005] == pytest.approx(1, abs=0.1)
    holder.layer(x).float().sum().backward()
    assert m.grad.dtype == torch.float32 and (m.grad != 0).all()
