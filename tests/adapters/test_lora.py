"""LoRA and LoCon compute base + scale * up(down(x)), forward and backward, alone, shared, stacked and merged."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lorakiln.adapters.inject import inject, inject_file
from lorakiln.adapters.spec import AdapterSpec
from lorakiln.base.errors import UserError
from tests.adapters.models import on_layer, predict, stir, tiny_unet, unet_inputs, unet_names

LAYERS = {
    "linear": (lambda: nn.Linear(7, 5), (3, 7)),
    "linear without bias": (lambda: nn.Linear(7, 11, bias=False), (3, 2, 7)),
    "one row": (lambda: nn.Linear(7, 5), (1, 1, 7)),
    "conv": (lambda: nn.Conv2d(3, 5, 3, padding=1), (3, 3, 7, 6)),
    "strided conv": (lambda: nn.Conv2d(3, 5, 3, stride=2, padding=1), (1, 3, 7, 9)),
    "dilated conv": (lambda: nn.Conv2d(3, 5, (3, 2), dilation=2, bias=False), (2, 3, 7, 9)),
    "1x1 conv": (lambda: nn.Conv2d(3, 5, 1), (2, 3, 4, 5)),
}
SPEC = AdapterSpec(targets=("*",), rank=3, alpha=2, conv_rank=2, conv_alpha=3)


def make(name, dtype=torch.float64):
    torch.manual_seed(0)
    build, shape = LAYERS[name]
    layer = build().to(dtype)
    holder, network = on_layer(layer, SPEC)
    return holder, network, torch.randn(shape, dtype=dtype)


def reference(layer, network, x):
    """The definition, with plain operations."""
    (down, up), width = network.adapters[0].tensors.values(), network.adapters[0].width
    if isinstance(layer, nn.Linear):
        return F.linear(x, layer.weight, layer.bias) + F.linear(F.linear(x, down), up) * width.scale
    mid = F.conv2d(x, down, None, layer.stride, layer.padding, layer.dilation)
    return type(layer).forward(layer, x) + F.conv2d(mid, up) * width.scale


@pytest.mark.parametrize("name", LAYERS)
def test_forward_and_gradients_are_the_definitions(name):
    holder, network, x = make(name)
    x.requires_grad_()
    wanted = [x, *network.adapters[0].tensors.values()]
    ours, theirs = holder.layer(x), reference(holder.layer, network, x)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    dy = torch.randn_like(ours)
    for mine, right in zip(torch.autograd.grad(ours, wanted, dy), torch.autograd.grad(theirs, wanted, dy), strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_those_of_finite_differences(name):
    holder, network, x = make(name)
    down, up = network.adapters[0].tensors.values()
    assert torch.autograd.gradcheck(lambda *_: holder.layer(x), (x.requires_grad_(), down, up))


def test_channels_last_pictures_give_the_same():
    holder, network, x = make("conv")
    wanted = list(network.adapters[0].tensors.values())
    plain, last = holder.layer(x), holder.layer(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(plain, last)
    for one, two in zip(torch.autograd.grad(plain.sum(), wanted), torch.autograd.grad(last.sum(), wanted), strict=True):
        torch.testing.assert_close(one, two)


def test_a_row_view_that_is_not_contiguous_gives_the_same():
    holder, _, _ = make("linear")
    x = torch.randn(2, 7, 4, dtype=torch.float64).transpose(1, 2)
    torch.testing.assert_close(holder.layer(x), holder.layer(x.contiguous()))


def test_scale_is_alpha_over_rank_and_over_root_rank_when_stabilised():
    for stabilised, scale in ((False, 2 / 4), (True, 2 / 4**0.5)):
        spec = AdapterSpec(targets=("*",), rank=4, alpha=2, rank_stabilised=stabilised)
        holder, network = on_layer(nn.Linear(6, 5), spec)
        state = {name.partition(".")[2]: tensor for name, tensor in network.state_dict().items()}
        x = torch.randn(2, 6)
        change = holder.layer(x) - F.linear(x, holder.layer.weight, holder.layer.bias)
        expected = F.linear(F.linear(x, state["lora_down.weight"]), state["lora_up.weight"]) * scale
        torch.testing.assert_close(change, expected, rtol=1e-4, atol=1e-6)
        assert state["alpha"].item() == pytest.approx(scale * 4)  # every loader divides by the rank


def test_half_precision_base_keeps_fp32_masters():
    holder, network, x = make("linear", torch.bfloat16)
    tensors = network.adapters[0].tensors.values()
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    y = holder.layer(x.requires_grad_())
    assert y.dtype == torch.bfloat16
    gradients = torch.autograd.grad(y.float().sum(), [x, *tensors])
    assert [gradient.dtype for gradient in gradients] == [torch.bfloat16, torch.float32, torch.float32]


def test_a_second_derivative_is_refused_rather_than_wrong():
    holder, _, x = make("linear")
    y = holder.layer(x.requires_grad_()).square().sum()
    with pytest.raises(RuntimeError, match="differentiated twice"):
        torch.autograd.grad(y, x, create_graph=True)


@pytest.fixture
def unet():
    return tiny_unet()


@pytest.fixture(params=[False, True], ids=["lora", "dora"])
def network(unet, request):
    spec = AdapterSpec(rank=4, alpha=2, conv_rank=2, conv_alpha=1, dora=request.param)
    made = stir(inject({"unet": unet}, unet_names(), spec, 0))
    yield made
    made.remove()


@pytest.mark.parametrize("network", [False], indirect=True, ids=["lora"])
def test_shared_attention_projections_equal_three_separate_ones(unet, network):
    assert sum(len(group.adapters) for group in network.shared if len(group.adapters) == 3) > 0
    parameters = [trained.parameter for trained in network.trained()]
    together = predict(unet)
    gradients = torch.autograd.grad(together.square().sum(), parameters)
    assert not any(group.ready for group in network.shared), "every shared output is handed out within the forward"
    for adapter in network.adapters:
        adapter.shared = None
    alone = predict(unet)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    for one, two in zip(gradients, torch.autograd.grad(alone.square().sum(), parameters), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3 * two.abs().max().item())


@pytest.mark.parametrize("network", [False], indirect=True, ids=["lora"])
def test_sharing_saves_down_projections(unet, network):
    def products():
        with torch.profiler.profile(acc_events=True) as profile, torch.no_grad():
            predict(unet)
        return sum(event.count for event in profile.key_averages() if event.key == "aten::mm")

    shared = products()
    for adapter in network.adapters:
        adapter.shared = None
    assert products() - shared == sum(len(group.adapters) - 1 for group in network.shared)


@pytest.mark.parametrize("network", [False], indirect=True, ids=["lora"])
def test_a_shared_output_is_not_handed_out_for_another_input(unet, network):
    attention = unet.mid_block.attentions[0].transformer_blocks[0].attn1
    x, other = torch.randn(2, 1, 5, 64)
    with torch.no_grad():
        attention.to_q(x)
        of_other = attention.to_k(other)
        attention.to_q(x)
        x += 1
        of_changed = attention.to_k(x)
        for adapter in network.adapters:
            adapter.shared = None
        torch.testing.assert_close(of_other, attention.to_k(other))
        torch.testing.assert_close(of_changed, attention.to_k(x))


def test_gradient_checkpointing_changes_no_gradient(unet, network):
    parameters = [trained.parameter for trained in network.trained()]
    plain = torch.autograd.grad(predict(unet).square().sum(), parameters)
    block = unet.mid_block
    original = block.forward
    block.forward = lambda *args, **kwargs: checkpoint(original, *args, use_reentrant=False, **kwargs)
    try:
        again = torch.autograd.grad(predict(unet).square().sum(), parameters)
    finally:
        del block.forward
    assert all(torch.equal(one, two) for one, two in zip(plain, again, strict=True))


def test_zero_strength_is_the_base_to_the_bit(unet, network):
    with torch.no_grad():
        changed = predict(unet)
        network.strength = 0
        silent = predict(unet)
        network.remove()
        assert torch.equal(silent, predict(unet))
        assert not torch.allclose(changed, silent)


def test_strength_scales_the_change_of_the_weight():
    holder, network, x = make("conv")
    base = type(holder.layer).forward(holder.layer, x)
    full = holder.layer(x) - base
    network.strength = 0.3
    torch.testing.assert_close(holder.layer(x) - base, 0.3 * full)


def test_fresh_adapters_change_nothing(unet):
    with torch.no_grad():
        before = predict(unet)
        fresh = inject({"unet": unet}, unet_names(), AdapterSpec(rank=2), 0)
        torch.testing.assert_close(predict(unet), before)
        fresh.remove()


def test_two_networks_add_up_and_come_off_in_any_order(unet, network):
    with torch.no_grad():
        base_and_first = predict(unet)
        second = stir(inject({"unet": unet}, unet_names(), AdapterSpec(rank=2, targets=("*attn1*",)), 1), seed=4)
        both = predict(unet)
        merged = copy.deepcopy({t.path: t.parameter for t in second.trained()})
        assert merged and not torch.allclose(both, base_and_first)
        network.merge()
        torch.testing.assert_close(predict(unet), both, rtol=1e-3, atol=1e-4)
        network.unmerge()
        network.strength = 0
        only_second = predict(unet)
        network.remove()
        torch.testing.assert_close(predict(unet), only_second)
        second.remove()
        assert not torch.allclose(predict(unet), only_second)
        assert not any("forward" in module.__dict__ for module in unet.modules())


def test_merging_equals_not_merging_and_unmerging_restores_the_bits(unet, network):
    weights = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    network.strength = 0.7
    with torch.no_grad():
        live = predict(unet)
        network.merge()
        torch.testing.assert_close(predict(unet), live, rtol=1e-3, atol=1e-4)
        network.unmerge()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in unet.state_dict().items())
    assert torch.equal(predict(unet), live)


def test_the_base_is_never_trained(unet, network):
    predict(unet).sum().backward()
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in unet.parameters())
    assert all(trained.parameter.grad is not None for trained in network.trained())
    for trained in network.trained():
        trained.parameter.grad = None


def test_adapting_does_not_change_the_models_own_state_dict(unet, network):
    assert not any("lora" in name for name in unet.state_dict())
    assert not list(network.adapters[0].place.layer.children())


def test_tensors_come_back_as_the_same_network(unet, network):
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        before = predict(unet)
        network.remove()
        loaded = inject_file({"unet": unet}, unet_names(), state)
        torch.testing.assert_close(predict(unet), before, rtol=0, atol=0)
        loaded.remove()
        fresh = inject({"unet": unet}, unet_names(), network.spec, 5)
        fresh.load_state_dict(state)
        assert torch.equal(predict(unet), before)
        fresh.remove()
    assert {name: tuple(t.shape) for name, t in loaded.state_dict().items()} == {
        n: tuple(t.shape) for n, t in state.items()
    }


def change(state, name, value):
    return {**state, name: value}


def test_loading_says_which_module_does_not_fit(unet, network):
    state = network.state_dict()
    name = "lora_unet_middle_block_1_proj_in.lora_down.weight"
    cases = [
        (change(state, name, torch.zeros(8, 64)), rf"{name}: shape \(8, 64\) in the file, \(4, 64\) here"),
        ({key: value for key, value in state.items() if key != name}, f"{name}: not in the file"),
        (change(state, "lora_unet_extra.alpha", torch.tensor(1.0)), "lora_unet_extra.alpha: in the file but not here"),
        (change(state, "lora_unet_middle_block_1_proj_in.alpha", torch.tensor(4.0)), "4 in the file, 2 here"),
        ({"lora_unet_double_blocks_0_img_attn_qkv.alpha": torch.tensor(1.0)}, "not a LoRA of this model family"),
        ({}, "not a LoRA of this model family"),
    ]
    before = {key: value.clone() for key, value in state.items()}
    for tensors, message in cases:
        with pytest.raises(UserError, match=message):
            network.load_state_dict(tensors)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items()), "half loaded"


def test_a_file_of_another_family_is_one_clear_error(unet):
    flux = {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": torch.zeros(4, 8)}
    with pytest.raises(UserError, match=r"not a LoRA of this model family.*double_blocks"):
        inject_file({"unet": unet}, unet_names(), flux)
    name = "lora_unet_middle_block_1_proj_in"
    wide = {f"{name}.lora_down.weight": torch.zeros(4, 320), f"{name}.lora_up.weight": torch.zeros(320, 4)}
    with pytest.raises(UserError, match=r"lora_unet_middle_block_1_proj_in.*does not fit"):
        inject_file({"unet": unet}, unet_names(), wide)
    assert not any("forward" in module.__dict__ for module in unet.modules())


def test_parts_that_are_not_at_hand_are_left_out(unet, network):
    state = change(network.state_dict(), "lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha", torch.tensor(1.0))
    names = unet_names() | {"te1": {"encoder.layers.0.mlp.fc1": "lora_te1_text_model_encoder_layers_0_mlp_fc1"}}
    loaded = inject_file({"unet": unet}, names, state)
    assert len(loaded.adapters) == len(network.adapters)
    loaded.remove()


def test_inference_mode_works(unet, network):
    with torch.inference_mode():
        first = unet(**unet_inputs(), return_dict=False)[0]
    torch.testing.assert_close(first, predict(unet).detach())
