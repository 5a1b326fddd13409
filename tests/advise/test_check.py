"""Gathering a case from real files, quickly and without torch; tokens as the text encoders count them."""

import resource
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from lorakiln.advise.cards import card
from lorakiln.advise.check import check, disk, gather, missing_packages, stops, tokens
from lorakiln.advise.pictures import Pictures
from lorakiln.base.errors import UserError
from lorakiln.base.recipe import read
from tests.advise.cases import base, pictures, recipe
from tests.advise.test_pictures import draw

TEXTS = ["zzz, 1girl, long hair", "it's a cat's café — 3,000 naïve_words!!", "", "日本語 and emoji 😀😀", "A  B\tC's"]


def test_tokens_are_counted_as_the_text_encoders_do():
    from lorakiln.families.sdxl.text import tokenizer

    texts = [text for text in TEXTS if text] + ["very " * 90]
    plain = pictures(1).shown[0]
    shown = [replace(plain, caption=text) for text in texts]
    real = tuple(len(ids) for ids in tokenizer()(texts, add_special_tokens=False).input_ids)
    assert tokens(Pictures(tuple(shown))) == real


@pytest.fixture
def source(tmp_path):
    for n in range(12):
        draw(tmp_path / "pics" / f"{n}.png", (128, 128), (n, 9, 9), caption=f"zzz, tag{n}, cat")
    path = tmp_path / "my.toml"
    path.write_text(
        'base = "starter"\nruns = "r"\n[optim]\nname = "came"\nlr = 5e-4\n'
        '[[dataset]]\nfolder = "pics"\nbucket_step = 16\n'
    )
    return path


def test_a_case_is_gathered_from_files(source):
    case = gather(read(source), source, card=card("rtx3060"), hours=1.0, purpose="style")
    assert (case.count, case.steps, case.purpose, case.machine.vram) == (12, 120, "style", 12.0)
    assert case.memory and case.tokens and not case.output_exists and 0 < case.needs_disk < 1
    assert {one.rule.id for one in check(case)} >= {"K020", "K030"}


def test_an_existing_run_is_noticed_unless_it_is_resumed(source, tmp_path):
    (tmp_path / "r" / "my").mkdir(parents=True)
    (tmp_path / "r" / "my" / "recipe.toml").write_text("")
    assert gather(read(source), source).output_exists
    assert not gather(read(source), source, may_exist=True).output_exists


def test_an_error_stops_unless_it_is_ignored(source):
    plain = read(source, ["base=sd_xl_base_1.0.safetensors"])
    found = check(gather(plain, source))
    assert {"K001", "K033"} <= {one.rule.id for one in found} and stops(found)
    ignored = read(source, ["base=sd_xl_base_1.0.safetensors", "ignore=['K001', 'K033']"])
    assert not stops(check(gather(ignored, source)))


def test_the_clock_of_a_rental_is_told_by_the_environment_to_check_and_train_alike(source, monkeypatch):
    now = datetime.now()
    for hours, warned in ((0.01, True), (1000.0, False), (-5.0, True)):
        monkeypatch.setenv("KILN_RENTED_UNTIL", (now + timedelta(hours=hours)).isoformat(timespec="seconds"))
        found = {one.rule.id for one in check(gather(read(source), source, card=card("rtx3060")))}
        assert ("K027" in found) == warned, hours
    monkeypatch.setenv("KILN_RENTED_UNTIL", "tonight")
    with pytest.raises(UserError, match="KILN_RENTED_UNTIL = tonight: write it as"):
        gather(read(source), source)


def test_a_package_that_is_missing_is_named():
    assert missing_packages(recipe(optim={"name": "nowhere.optim.Adam"})) == ("nowhere",)
    assert missing_packages(recipe(optim={"name": "torch.optim.NAdam"})) == ()
    assert missing_packages(recipe()) == ()


def test_disk_counts_checkpoints_state_and_cache():
    plain = recipe(save={"epochs": 1, "dtype": "bf16"}, train={"epochs": 10})
    fewer = recipe(save={"epochs": 1, "dtype": "bf16", "keep": 2}, train={"epochs": 10})
    wide = recipe(save={"epochs": 1, "dtype": "fp32"}, train={"epochs": 10})
    sizes = [disk(one, base(), pictures(60), 600) for one in (plain, fewer, wide)]
    lora = 42_557_440 * 2 / 2**30
    assert sizes[0] - sizes[1] == pytest.approx(8 * lora)
    assert sizes[2] - sizes[0] == pytest.approx(11 * lora)


def test_check_answers_at_once_and_without_torch(source):
    code = (
        "import sys\nfrom lorakiln.cli import main\n"
        "try:\n    main(['check', 'my.toml', '--json'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules), 'heavy import'"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=source.parent)
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2, "seconds of CPU"
    assert '"findings"' in done.stdout
