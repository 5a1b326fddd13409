"""Parameters become views of one buffer and notice nothing of it."""

import pytest
import torch
from torch import nn

from lorakiln.optim import flat as flat_module
from lorakiln.optim.flat import FlatParameters
from lorakiln.optim.optimizers import optimizers
from lorakiln.optim.rounding import Rounded
from tests.optim import problem


def test_values_and_shapes_survive_the_move():
    before, tensors = problem.parameters(), problem.parameters()
    problem.flat(tensors)
    for old, new in zip(before, tensors, strict=True):
        assert torch.equal(old, new) and new.is_contiguous()


def test_buffer_and_parameters_are_the_same_memory():
    tensors = problem.parameters()
    flat = problem.flat(tensors)
    flat.values.fill_(3)
    flat.gradients_buffer.fill_(4)
    assert all((tensor == 3).all() and (tensor.grad == 4).all() for tensor in tensors)
    tensors[2].data.fill_(5)
    assert (flat.values == 5).sum() == tensors[2].numel()


def test_backward_adds_into_the_buffer():
    layer = nn.Linear(3, 2)
    flat = FlatParameters({"all": list(layer.parameters())})
    for _ in range(2):
        layer(torch.ones(1, 3)).sum().backward()
    assert layer.weight.grad.flatten().tolist() == [2.0] * 6
    assert flat.gradients()[0].sum() == 6 * 2 + 2 * 2
    flat.zero_grad()
    layer(torch.ones(1, 3)).sum().backward()
    assert flat.groups[0].gradients.tolist() == [1.0] * 8


def test_same_shapes_lie_together_as_stacks_in_the_order_given():
    tensors = problem.parameters()
    unet, te1 = problem.flat(tensors).groups
    assert [(stack.shape, len(stack.values)) for stack in unet.stacks] == [((4, 12), 2), ((10, 4), 2), ((6,), 1)]
    assert [stack.shape for stack in te1.stacks] == [(4, 3, 3, 3), (7, 1, 1, 1), (4, 12), (6,)]
    for stack, members in zip(unet.stacks, ([0, 2], [1, 4], [3]), strict=True):
        for row, index in enumerate(members):
            assert stack.values[row].data_ptr() == tensors[index].data_ptr()
            assert stack.gradients[row].data_ptr() == tensors[index].grad.data_ptr()
    assert unet.values.numel() == sum(tensor.numel() for tensor in tensors[:5])


def test_groups_do_not_overlap():
    tensors = problem.parameters()
    unet, te1 = problem.flat(tensors).groups
    te1.values.fill_(1)
    unet.values.fill_(2)
    assert (te1.values == 1).all()
    assert all((tensor == 1).all() for tensor in tensors[5:])


@pytest.mark.parametrize("most", [0.0, 0.5, 1e6])
def test_clipping_is_torchs(most):
    ours, theirs = problem.parameters(), problem.parameters()
    flat = problem.flat(ours)
    for tensors in (ours, theirs):
        problem.run(tensors, lambda step: None, 0, 1)
    norm = flat.clip(most)
    expected = torch.nn.utils.clip_grad_norm_(theirs, most or float("inf"))
    torch.testing.assert_close(norm, expected)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_the_norm_of_many_numbers_is_exact():
    flat = FlatParameters({"all": [nn.Parameter(torch.zeros(4000, 4096))]})
    flat.gradients_buffer.fill_(0.1)
    assert flat.norm().item() == pytest.approx(0.1 * 16_384_000**0.5, rel=1e-6)


def test_scaling_gradients():
    tensors = problem.parameters()
    flat = problem.flat(tensors)
    problem.run(tensors, lambda step: None, 0, 1)
    flat.scale_gradients(0.25)
    torch.testing.assert_close(tensors[4].grad, 0.25 * problem.gradient(0, 4))


def test_a_replaced_gradient_is_noticed():
    tensors = problem.parameters()
    flat = problem.flat(tensors)
    flat.zero_grad()
    tensors[3].grad = None
    with pytest.raises(AssertionError, match="was replaced"):
        flat.zero_grad()


def test_a_parameter_in_two_groups_or_in_half_precision_is_refused():
    tensor = nn.Parameter(torch.zeros(3))
    with pytest.raises(AssertionError, match="two groups"):
        FlatParameters({"a": [tensor], "b": [tensor]})
    with pytest.raises(AssertionError, match="fp32"):
        FlatParameters({"a": [nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))]})


def rounded(*values, key=0):
    flat = FlatParameters({"all": [nn.Parameter(torch.tensor(values))]})
    flat.round_to_bf16(torch.Generator().manual_seed(key))
    return flat.groups[0].values


def test_rounding_to_bf16_takes_a_neighbour_and_is_right_on_average():
    """1 + 2^-9 lies a quarter of the way from 1 to the next bf16, 1 + 2^-7; -3 is bf16 itself."""
    values = rounded(*[1 + 2**-9] * 40_000, -(1 + 2**-9), -3.0, 0.0)
    up = values[:40_000] == 1 + 2**-7
    assert torch.equal(values[:40_000], torch.where(up, 1 + 2**-7, 1.0))
    assert up.float().mean().item() == pytest.approx(0.25, abs=0.01)  # four standard deviations
    assert values[-3].item() in (-1, -1 - 2**-7) and values[-2:].tolist() == [-3, 0]


def test_rounding_to_bf16_is_a_function_of_its_generator():
    values = torch.randn(500).tolist()
    assert torch.equal(rounded(*values), rounded(*values))
    assert not torch.equal(rounded(*values), rounded(*values, key=1))
    assert torch.equal(rounded(*values).bfloat16().float(), rounded(*values))


def test_rounding_in_pieces_reaches_every_value(monkeypatch):
    monkeypatch.setattr(flat_module, "ROUNDED_AT_ONCE", 7)
    values = rounded(*torch.randn(100).tolist())
    assert torch.equal(values.bfloat16().float(), values)


def test_steps_too_small_for_bf16_add_up():
    """A hundred steps of 1e-4 on weights of one: each alone rounds back to one, together they are 0.01."""
    flat = FlatParameters({"all": [nn.Parameter(torch.ones(4000))]})
    optimizer = Rounded(optimizers["lion"](flat), flat, seed=0)
    optimizer.set_lr({"all": 1e-4})
    for _ in range(100):
        flat.gradients_buffer.fill_(-1)
        optimizer.step()
    assert set(flat.groups[0].values.tolist()) <= {1 + n / 128 for n in range(20)}
    assert flat.groups[0].values.mean().item() == pytest.approx(1.01, abs=5e-4)
