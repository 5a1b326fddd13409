"""What every test shares: threads that do not spin, and no way out to the network."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _in_a_clean_folder(tmp_path, monkeypatch):
    """Nothing a test writes by a relative path lands in the checkout."""
    monkeypatch.chdir(tmp_path)
