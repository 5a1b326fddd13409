"""A folder of real little pictures, and an encoder that counts."""

import pytest

from tests.data.pictures import Encoder, picture


@pytest.fixture
def encoder():
    return Encoder()


@pytest.fixture
def folder(tmp_path):
    """Nine pictures in three shapes."""
    root = tmp_path / "pictures"
    for number in range(9):
        width, height = ((64, 64), (96, 48), (40, 80))[number % 3]
        picture(root / f"{number}.png", width, height, seed=number, caption=f"cat {number}, red, blue, green")
    return root
