"""What every test shares: threads that do not spin, no way out to the network, and a ledger of its own."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["KILN_LEDGER"] = "off"  # what is trained for several tests is nobody's to remember

import hypothesis
import pytest
import torch

# the gate asks the same questions every time, make test-all new ones; a busy machine is no failure
hypothesis.settings.register_profile("gate", derandomize=True, deadline=None)
hypothesis.settings.register_profile("new", deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _in_a_clean_folder(tmp_path, monkeypatch):
    """Nothing a test writes by a relative path lands in the checkout, and no run in the user's own ledger."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KILN_LEDGER", str(tmp_path / "ledger" / "ledger.sqlite"))
