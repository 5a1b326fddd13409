"""The demo's LoRA has learned the style: it explains pictures of it that it never saw."""

import pytest

from benchmarks.demo import measure


@pytest.mark.slow
def test_the_demo_gains_a_tenth_on_held_out_pictures_and_nothing_at_strength_zero():
    figures = measure()
    assert figures["heldout_gain"] >= 0.10
    assert figures["strength_zero_gain"] == 0
