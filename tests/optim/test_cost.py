"""A step on SDXL's 1,444 LoRA tensors stays within its operations, and never waits for the device."""

import pytest

from benchmarks import optimizer_ops


@pytest.mark.parametrize(
    ("name", "most"), [("adamw", 10), ("lion", 10), ("prodigy", 60), ("adafactor", 400), ("came", 400)]
)
def test_a_step_is_few_operations_and_no_sync(name, most):
    found = optimizer_ops.ours(name, rank=1)
    assert 0 < found["ops"] <= most
    assert found["syncs"] == 0


def test_the_shapes_are_sdxls():
    shapes = optimizer_ops.shapes(16)
    assert (len(shapes), len(set(shapes))) == (1444, 9)
    assert sum(height * width for height, width in shapes) == 42_557_440


def test_the_counter_sees_syncs_and_operations():
    import torch

    one = torch.ones(3)
    found = optimizer_ops.counted(lambda: (one + one).sum().item())
    assert found == {"ops": 3, "syncs": 1}
