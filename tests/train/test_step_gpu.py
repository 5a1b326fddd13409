"""The GPU benchmark runs, on whatever there is."""

import math

import pytest
import torch

from benchmarks.step_gpu import VARIANTS, measure

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_every_variant_takes_steps_and_the_ratios_are_told():
    figures = measure("small", list(VARIANTS), [1], 1, torch.device("cpu"))
    assert {f"{name}_b1_ms" for name in VARIANTS} < set(figures)
    assert figures["lora_over_peft_b1"] > 0
    assert all(math.isfinite(value) for value in figures.values())
