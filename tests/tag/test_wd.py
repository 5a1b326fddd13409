"""Taggers of the WD family: preprocessing to the number, thresholds, and models that are missing or broken."""

import numpy as np
import pytest
from PIL import Image

from lorakiln.base.errors import UserError
from lorakiln.tag import wd
from lorakiln.tag.tagger import Guess, Tagged, Thresholds, mcut_threshold, words
from tests.tag import models


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return models.write(tmp_path_factory.mktemp("tagger"), models.Colours())


def test_pixels_are_bgr_numbers_on_a_white_square():
    picture = Image.new("RGB", (8, 4), (10, 20, 30))
    pixels = wd.prepare(picture, 8)
    assert pixels.dtype == np.float32 and pixels.shape == (8, 8, 3)
    assert (pixels[:2] == 255).all() and (pixels[6:] == 255).all()
    assert (pixels[2:6] == [30, 20, 10]).all()


def test_chances_are_sorted_into_kinds(folder):
    tagger = wd.load(str(folder), "cpu", 1)
    (answer,) = tagger.tags([Image.new("RGB", (20, 20), (255, 0, 51))])
    assert answer.general == (Guess("red hat", 1.0), Guess("blue sky", pytest.approx(0.2)), Guess("^_^", 0.0))
    assert answer.character == (Guess("miku (vocaloid)", pytest.approx(0.4)),)
    assert answer.rating[0] == Guess("general", pytest.approx(0.6))
    assert tagger.provider == "CPUExecutionProvider" and tagger.side == 16


@pytest.mark.parametrize("batch", [0, 1, 4])
def test_a_fixed_batch_gives_the_same_answers(folder, tmp_path, batch):
    pictures = [Image.new("RGB", (16, 16), (40 * at, 200 - 30 * at, 90)) for at in range(6)]
    fixed = wd.load(str(models.write(tmp_path / "fixed", models.Colours(), batch=batch)), "cpu", 1)
    assert fixed.tags(pictures) == wd.load(str(folder), "cpu", 1).tags(pictures)


def test_thresholds_apply_by_kind():
    tagged = Tagged(
        (Guess("hat", 0.9), Guess("sky", 0.35), Guess("tree", 0.34)), (Guess("miku", 0.84), Guess("rin", 0.2)),
        (Guess("sensitive", 0.6), Guess("general", 0.4)),
    )  # fmt: skip
    assert words(tagged, Thresholds()) == ["hat", "sky"]
    assert words(tagged, Thresholds(0.9, 0.8, rating=True)) == ["miku", "hat", "sensitive"]
    assert words(tagged, Thresholds(mcut=True)) == ["miku", "hat"]
    with pytest.raises(UserError, match=r"general threshold 1\.5"):
        Thresholds(1.5)


def test_mcut_cuts_in_the_widest_gap():
    assert mcut_threshold([0.9, 0.8, 0.3, 0.2]) == pytest.approx(0.55)
    assert mcut_threshold([0.5]) == 0


def test_what_is_missing_or_broken_names_the_folder(folder, tmp_path):
    cases = {
        "no such": (lambda path: None, "holds no"),
        "no model": (lambda path: _copy(folder, path, "selected_tags.csv"), r"holds no model\.onnx"),
        "no tags": (lambda path: _copy(folder, path, "model.onnx"), r"holds no selected_tags\.csv"),
    }
    for name, (make, said) in cases.items():
        make(tmp_path / name)
        with pytest.raises(UserError, match=said) as error:
            wd.load(str(tmp_path / name))
        assert str(tmp_path / name) in str(error.value)


def _copy(source, target, *names):
    target.mkdir()
    for name in names:
        (target / name).write_bytes((source / name).read_bytes())


def test_damage_is_named(folder, tmp_path):
    _copy(folder, tmp_path / "cut", "model.onnx", "selected_tags.csv")
    (tmp_path / "cut" / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:200])
    with pytest.raises(UserError, match="is not a readable ONNX model"):
        wd.load(str(tmp_path / "cut"))
    _copy(folder, tmp_path / "list", "model.onnx")
    (tmp_path / "list" / "selected_tags.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="is not a tagger's list of tags"):
        wd.load(str(tmp_path / "list"))
    models.write(tmp_path / "short", models.Colours())
    (tmp_path / "short" / "selected_tags.csv").write_text("tag_id,name,category,count\n1,hat,0,5\n")
    with pytest.raises(UserError, match=r"gives 6 chances but selected_tags\.csv names 1 tags"):
        wd.load(str(tmp_path / "short"))
    bad = wd.load(str(models.write(tmp_path / "nan", models.Broken())), "cpu", 1)
    with pytest.raises(UserError, match="no numbers"):
        bad.tags([Image.new("RGB", (4, 4))])


def test_a_hub_id_that_is_not_cached_is_no_reason_to_take_another_model():
    with pytest.raises(UserError, match="nobody/no-such-tagger: neither a folder nor in the local hub cache"):
        wd.load("nobody/no-such-tagger")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """In the layout of the released models: 448 pixels, ratings first, then general tags and characters."""
    return models.write(tmp_path_factory.mktemp("wd"), models.Released(), models.Released.SIDE, rows=models.RELEASED)


def test_the_layout_of_the_released_models_is_read_kind_by_kind(large):
    tagger = wd.load(str(large), "cpu", 1)
    assert tagger.side == 448 and len(tagger.vocabulary) == 12
    (answer,) = tagger.tags([Image.new("RGB", (300, 900), (255, 0, 0))])
    assert [guess.name for guess in answer.rating] == ["general", "sensitive", "questionable", "explicit"]
    assert [guess.name for guess in answer.general] == ["1girl", "long hair", "^_^", "red theme", "0_0", "hat"]
    assert [guess.name for guess in answer.character] == ["hatsune miku", "saber (fate)"]
    assert answer.general[3].chance == pytest.approx(1 / 3, abs=0.01)  # a third of the white square is red
    assert words(answer, Thresholds(rating=True)) == ["hatsune miku", "1girl", "long hair", "^_^", "general"]


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_gpu_that_is_listed_but_does_not_start_is_told(folder, monkeypatch):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("it starts here")
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    with pytest.raises(UserError, match="device gpu: CUDAExecutionProvider does not start here"):
        wd.load(str(folder), "gpu", 1)
    assert (
        wd.load(str(folder), "auto", 1).provider
        == "CPUExecutionProvider, since CUDAExecutionProvider does not start here"
    )
    assert wd.load(str(folder), "cpu", 1).provider == "CPUExecutionProvider"


def test_a_gpu_that_is_not_there_is_refused(folder):
    import onnxruntime

    if any(name in onnxruntime.get_available_providers() for name in wd._GPU):
        pytest.skip("there is one")
    with pytest.raises(UserError, match="knows no GPU"):
        wd.load(str(folder), "gpu")
