"""Rank and module dropout: drawn from (seed, step, micro-batch), gone at rest, and of the right size on average."""

import pytest
import torch
from torch import nn

from lorakiln.adapters.inject import inject
from lorakiln.adapters.spec import AdapterSpec
from tests.adapters.models import on_layer, predict, stir, tiny_unet, unet_names

SPECS = [
    AdapterSpec(rank=8, targets=("*",), rank_dropout=0.5),
    AdapterSpec(rank=8, targets=("*",), rank_dropout=0.5, dora=True),
    AdapterSpec(kind="loha", rank=3, targets=("*",), rank_dropout=0.5),
    AdapterSpec(kind="lokr", rank=2, targets=("*",), rank_dropout=0.5, factor=4),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.kind} {spec.dora}")
def test_masks_are_a_function_of_seed_step_and_micro_batch(spec):
    x = torch.randn(4, 16)

    def outputs(seed, *steps):
        torch.manual_seed(0)
        holder, network = on_layer(nn.Linear(16, 24), spec, seed=seed)
        stir(network, std=0.2)
        results = []
        for step, micro in steps:
            network.begin(step, micro)
            results.append(holder.layer(x).detach())
        network.rest()
        return [*results, holder.layer(x).detach()]

    first, again, other, micro, rest = outputs(1, (3, 0), (3, 0), (4, 0), (3, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other) and not torch.equal(first, micro) and not torch.equal(first, rest)
    assert torch.equal(outputs(1, (3, 0))[0], first), "a resumed run draws what the whole run drew"


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.kind} {spec.dora}")
def test_rank_dropout_keeps_the_mean_and_drops_the_share_it_says(spec):
    torch.manual_seed(0)
    _, network = on_layer(nn.Linear(16, 24), spec)
    (adapter,) = network.adapters
    network.rest()
    whole = adapter.delta(adapter.tensors).detach()
    total, kept = torch.zeros_like(whole), 0.0
    for step in range(400):
        network.begin(step)
        kept += (adapter.mask > 0).float().mean().item() / 400
        if spec.kind == "lora":
            down, up, scale = adapter.factors()
            total += scale * (up @ down).detach() / 400
        else:
            total += adapter.delta(adapter.tensors).detach() / 400
    assert abs(kept - 0.5) < 0.05
    torch.testing.assert_close(total, whole, rtol=0, atol=0.25 * whole.abs().max().item())
    assert set(adapter.mask.unique().tolist()) <= {0.0, 2.0}


def test_module_dropout_leaves_whole_modules_out():
    network = inject({"unet": tiny_unet()}, unet_names(), AdapterSpec(rank=2, module_dropout=0.3), 0)
    stir(network)
    with torch.no_grad():
        whole = predict(tiny_unet())
        shares = []
        for step in range(20):
            network.begin(step)
            shares.append(sum(adapter.active for adapter in network.adapters) / len(network.adapters))
        dropped = predict(tiny_unet())
        network.rest()
        torch.testing.assert_close(predict(tiny_unet()), whole)
        assert abs(sum(shares) / 20 - 0.7) < 0.04 and len(set(shares)) > 3
        assert not torch.allclose(dropped, whole)
        network.strength = 0
        network.begin(1)
        assert not any(adapter.active for adapter in network.adapters)
    network.remove()


def test_gradients_respect_the_masks():
    torch.manual_seed(0)
    holder, network = on_layer(nn.Linear(6, 5).double(), SPECS[0])
    network.begin(0)
    (adapter,) = network.adapters
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *_: holder.layer(x), (x, *adapter.tensors.values()))
    holder.layer(x).sum().backward()
    rows = adapter.tensors["lora_down.weight"].grad.abs().sum(1)
    assert 0 < (rows == 0).sum() < 8, "a dropped rank gets no gradient"


def test_shared_projections_drop_ranks_as_three_separate_ones_do():
    spec = AdapterSpec(rank=8, rank_dropout=0.5)
    network = stir(inject({"unet": tiny_unet()}, unet_names(), spec, 0), std=0.1)
    parameters = [trained.parameter for trained in network.trained()]
    network.begin(3)
    together = predict(tiny_unet())
    gradients = torch.autograd.grad(together.square().sum(), parameters)
    assert any(len(group.adapters) == 3 for group in network.shared)
    for adapter in network.adapters:
        adapter.shared = None
    alone = predict(tiny_unet())
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    for one, two in zip(gradients, torch.autograd.grad(alone.square().sum(), parameters), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3 * two.abs().max().item())
    network.rest()
    assert not torch.allclose(predict(tiny_unet()), alone)
    network.remove()
