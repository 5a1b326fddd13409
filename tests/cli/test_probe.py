"""`kiln probe` at the command line, on a base that has learned nothing: what it says, and what it refuses."""

import json
import math
import shlex

import pytest
from PIL import Image

from lorakiln.advise.novelty import read
from tests.advise.test_pictures import draw
from tests.cli.verbs import kiln
from tests.tiny import tiny_sdxl_file


@pytest.fixture
def words(tmp_path):
    """A probe of four pictures of a folder whose name has a space, as quick as it gets."""
    for n in range(4):
        draw(tmp_path / "my pics" / f"{n}.png", (64, 64), (60 * n, 9, 9), caption=f"zzz, tag{n}, cat")
    base = tiny_sdxl_file(tmp_path / "tiny.safetensors")
    return ["probe", "my pics", "--base", base, "--steps", 1, "--count", 4]


def test_the_probe_measures_and_names_the_next_command(words, tmp_path, capsys):
    code, told = kiln(capsys, *words)
    assert code == 0 and "The base explains these 4 pictures" in told.out
    next_words = shlex.split(told.out.splitlines()[-1])
    assert next_words[:4] == ["next", "kiln", "advise", "my pics"] and "--for" in next_words
    assert read(next_words[-1].removeprefix("--novelty=")).word in ("familiar", "novel")
    with Image.open(tmp_path / "probe.png") as sheet:
        assert sheet.width >= 4 * 64 and sheet.height >= 2 * 64

    code, told = kiln(capsys, *words)
    assert code == 2 and "probe.png: exists; choose another --out, or --overwrite" in told.err

    code, told = kiln(capsys, *words, "--overwrite", "--json")
    answer = json.loads(told.out.splitlines()[-1])
    assert code == 0 and answer["count"] == 4 and answer["picture"] == "probe.png"
    assert all(math.isfinite(answer[name]) for name in ("excess", "spread", "words", "own_words", "trigger"))
    assert read(told.out.splitlines()[-1]).word == answer["novelty"], "advise takes the line as it is"


def test_what_it_cannot_measure_is_one_line(words, tmp_path, capsys):
    (tmp_path / "my pics" / "3.txt").unlink()
    code, told = kiln(capsys, *words)
    assert code == 2 and "my pics: 3 pictures with captions are too few to tell anything; 4 or more" in told.err
    (tmp_path / "my pics" / "3.txt").write_text("zzz, cat")
    code, told = kiln(capsys, *words, "--precision", "fp8")
    assert code == 2 and told.err == "kiln: --precision fp8: choose from auto, fp32, bf16, fp16\n"
