"""What the doctor says of this machine and of machines it is told about."""

import pytest

from lorakiln.advise.cards import parse_line
from lorakiln.advise.doctor import card_lines, disk_lines, examine, fits, package_lines, torch_lines, write_speed

NEW = parse_line("NVIDIA GeForce RTX 5090, 32768, 32000, 12.0, 570.1")
OLD = parse_line("NVIDIA GeForce RTX 2070, 8192, 8000, 7.5, 550.1")


@pytest.mark.parametrize(
    ("capability", "arches", "good"),
    [
        ((8, 9), ["sm_80", "sm_86", "sm_90"], True),
        ((12, 0), ["sm_80", "sm_90"], False),
        ((12, 0), ["sm_90", "sm_120"], True),
        ((8, 0), ["sm_86"], False),
        ((12, 0), ["sm_80", "compute_90"], True),
        ((9, 0), ["sm_90a"], True),
        ((7, 5), ["sm_80", "compute_80"], False),
    ],
)
def test_a_build_runs_on_its_own_kind_of_card(capability, arches, good):
    assert fits(capability, arches) == good


def test_a_new_card_with_an_old_build_is_bad_and_cured():
    lines = card_lines([NEW], {"cuda": "12.1", "available": True, "arches": ["sm_80", "sm_90"]})
    (bad,) = [line for line in lines if line.state == "bad"]
    assert "not for this card" in bad.told and "12.8" in bad.cure
    assert not [line for line in card_lines([NEW], {"cuda": "12.8", "arches": ["sm_120"]}) if line.state == "bad"]


def test_a_cpu_build_beside_a_card_is_bad():
    assert any(line.state == "bad" for line in card_lines([OLD], {"cuda": None, "available": False}))
    assert any("fp16" in line.cure for line in card_lines([OLD], {"cuda": "12.1", "arches": ["sm_75"]}))


def test_torch_that_cannot_be_imported_is_bad():
    assert torch_lines({"problem": "No module named 'torch'"})[0].state == "bad"
    assert torch_lines({"version": "2", "cuda": "12", "available": True, "kernels": []})[1].state == "bad"
    assert torch_lines({"version": "2", "cuda": "12", "available": True, "kernels": ["flash"]})[1].state == "good"


def test_a_folder_that_cannot_be_written_is_bad(tmp_path, monkeypatch):
    assert write_speed(tmp_path, 1) > 0
    assert "bad" not in [line.state for line in disk_lines(tmp_path)]

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert disk_lines(tmp_path)[1].state == "bad"


def test_optional_packages_are_told_with_their_use(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert {line.what: line.cure for line in package_lines()}["onnxruntime"] == "pip install onnxruntime"


def test_this_machine_is_examined(tmp_path, monkeypatch):
    monkeypatch.setattr("lorakiln.advise.doctor.ask_torch", lambda: {"version": "x", "cuda": None, "available": False})
    monkeypatch.setattr("lorakiln.advise.doctor.installed", lambda timeout: [])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = examine(tmp_path)
    assert {"card", "torch", "memory", "disk", "write speed"} <= {line.what for line in found}
    assert not [line for line in found if line.state == "bad"]
