"""What a glance at a folder finds: sizes, buckets, captions, copies; and how captions are read."""

import pytest
from PIL import Image

from lorakiln.advise.pictures import kind_of, look, picture_size, spellings, trigger_place
from lorakiln.base.errors import UserError
from lorakiln.base.records import Size
from lorakiln.base.settings import Dataset
from lorakiln.tag import captions
from tests.cli.verbs import kiln
from tests.curate.pictures import save, scene


def draw(path, size=(64, 64), colour=(200, 10, 10), caption=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption)


def table(folder, **changes):
    return Dataset(folder=str(folder), **({"bucket_step": 16, "resolution": 64} | changes))


def test_a_folder_is_seen_as_training_will_see_it(tmp_path):
    draw(tmp_path / "3_zzz" / "a.png", (64, 64), caption="zzz, cat")
    draw(tmp_path / "3_zzz" / "b.png", (96, 48), (1, 2, 3))
    draw(tmp_path / "2_yyy" / "c.png", (64, 64), (9, 9, 9), caption="yyy, dog")
    found = look([table(tmp_path)], 64)
    assert found.count == 3
    assert {one.path.rsplit("/")[-1]: (one.visits, one.caption, one.trigger) for one in found.shown} == {
        "a.png": (3, "zzz, cat", "zzz"), "b.png": (3, None, "zzz"), "c.png": (2, "yyy, dog", "yyy"),
    }  # fmt: skip
    assert found.buckets()[Size(64, 64)] == 5 and sum(found.buckets().values()) == 8
    assert found.steps_per_epoch(2) == 3 + 2


def test_steps_are_those_of_the_loader(tmp_path):
    from lorakiln.data.buckets import Buckets
    from lorakiln.data.dataset import DatasetSpec, scan
    from lorakiln.data.loader import Batching, steps_per_epoch

    for n, size in enumerate([(64, 64)] * 5 + [(96, 48)] * 4 + [(40, 80)]):
        draw(tmp_path / f"{n}.png", size, (n, n, n), caption="x")
    spec = DatasetSpec(tmp_path, 3, Buckets(Size(64, 64), step=16), read_caption=captions.reader())
    found = look([table(tmp_path, repeats=3)], 64)
    for batch, accumulate in ((1, 1), (4, 1), (3, 2)):
        loaders = steps_per_epoch(scan([spec]).examples, Batching(0, batch, accumulate))
        assert found.steps_per_epoch(batch, accumulate) == loaders


def test_a_turned_photograph_has_its_upright_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(tmp_path / "a.jpg", (80, 40), exif=exif)
    assert picture_size(tmp_path / "a.jpg") == Size(40, 80)


def test_copies_have_equal_contents_and_others_do_not(tmp_path):
    draw(tmp_path / "a.png", caption="x")
    draw(tmp_path / "b.png", caption="x")
    draw(tmp_path / "c.png", colour=(0, 0, 9), caption="x")
    a, b, c = look([table(tmp_path)], 64).shown
    assert a.content == b.content != c.content


def test_a_broken_picture_is_told_not_fatal(tmp_path):
    draw(tmp_path / "a.png", caption="x")
    (tmp_path / "b.png").write_bytes(b"not a picture")
    found = look([table(tmp_path)], 64)
    assert found.count == 1 and "b.png" in found.unreadable[0]


@pytest.mark.parametrize("made", [False, True])
def test_an_empty_or_missing_folder_is_one_line(tmp_path, made):
    folder = tmp_path / "empty"
    if made:
        folder.mkdir()
    with pytest.raises(UserError, match="holds no picture" if made else "no such folder"):
        look([table(folder)], 64)


def test_held_out_pictures_are_not_counted_as_steps(tmp_path):
    for number in range(20):
        draw(tmp_path / f"{number}.png", colour=(number, 0, 0), caption="x")
    assert look([table(tmp_path)], 64).steps_per_epoch(3) == 7
    assert look([table(tmp_path, heldout=0.25)], 64).steps_per_epoch(3) == 5
    assert look([table(tmp_path, heldout=2)], 64).buckets() == {Size(64, 64): 18}
    assert look([table(tmp_path, heldout=2)], 64).count == 20


def test_the_curators_index_tells_copies_until_they_are_moved_away(tmp_path, capsys):
    save(tmp_path, a=scene(1), b=scene(2), again=scene(1).resize((300, 300)))
    assert look([table(tmp_path, missing="empty")], 64).near is None
    kiln(capsys, "curate", tmp_path, "--resolution", 64)
    assert look([table(tmp_path, missing="empty")], 64).near == 1
    kiln(capsys, "curate", tmp_path, "--resolution", 64, "--apply")
    assert look([table(tmp_path, missing="empty")], 64).near == 0


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["1girl, long hair, smile"] * 10, "tags"),
        (["A girl stands in a field. The sky is blue."] * 10, "prose"),
        (["1girl, long hair"] * 5 + ["A girl stands in a wide field and looks at the sky"] * 5, "mixed"),
        ([], "none"),
    ],
)
def test_tags_and_sentences_are_told_apart(texts, kind):
    assert kind_of(texts) == kind


def test_the_trigger_is_the_foremost_common_tag_that_is_no_quality_word():
    texts = [f"score_9, zzz, tag {n}, 1girl" for n in range(10)]
    assert trigger_place(texts) == ("zzz", 1)
    assert trigger_place([f"tag {n}, other {n}" for n in range(10)]) is None
    assert trigger_place(["zzz, a"] * 8 + ["b, zzz"] * 2) == ("zzz", 1), "kept only if its last usual place is"


def test_both_spellings_of_a_tag_are_noticed():
    assert spellings(["1girl, long_hair"] * 3 + ["1girl, long hair"]) == (0.75, 0.25)
    assert spellings(["score_9, source_anime, 1girl"]) == (0, 0)
