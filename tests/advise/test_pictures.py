"""What a glance at a folder finds: sizes, buckets, captions, copies; and how captions are read."""

import pytest
from PIL import Image

from lorakiln.advise.pictures import kind_of, look, picture_size, spellings, trigger_place
from lorakiln.base.errors import UserError
from lorakiln.base.recipe import parse
from lorakiln.base.records import Size
from lorakiln.base.settings import Dataset
from lorakiln.curate.compare import Relation
from lorakiln.curate.index import Index
from lorakiln.curate.picture import Measures, Picture
from lorakiln.data.loader import Batching, plan
from lorakiln.runs.build import dataset_spec
from lorakiln.runs.pictures import read_pictures
from tests.advise.cases import content
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


# the sets that steps are counted on: pictures by shape, the table's settings, folders that name repeats
SHAPES = {(64, 64): 5, (96, 48): 4, (40, 80): 3}
SETS = [
    ({}, ""),
    ({"repeats": 3}, ""),
    ({"heldout": 0.25}, ""),
    ({"heldout": 5, "repeats": 2}, ""),
    ({"heldout": 0.4}, "copies"),
    ({"heldout": 0.25, "repeats": 2}, "3_zzz"),
    ({"masks": "masks"}, "masks"),
]


@pytest.mark.parametrize(("changes", "kind"), SETS)
def test_steps_are_those_of_training(tmp_path, changes, kind):
    """What `kiln check` and `kiln advise` count is what the run's own plan has, also which pictures are held out."""
    folder = tmp_path / "pics" / (kind if kind == "3_zzz" else "")
    for n, size in enumerate(size for size, count in SHAPES.items() for _ in range(count)):
        draw(folder / f"{n}.png", size, (20 * n, 255 - 20 * n, 7), caption="x")
        if kind == "copies" and n in (0, 5):
            (folder / f"copy {n}.png").write_bytes((folder / f"{n}.png").read_bytes())
            (folder / f"copy {n}.txt").write_text("x")
        if kind == "masks":
            draw(tmp_path / "pics" / "masks" / f"{n}.png", size)
    changes = changes | ({"masks": str(tmp_path / "pics" / "masks")} if kind == "masks" else {})
    one = table(tmp_path / "pics", **changes)
    made = parse({"base": "x", "dataset": [one.model_dump()]}, "test")
    examples, held = read_pictures(made, [dataset_spec(one, 64)])
    found = look([one], 64)
    assert {shown.path for shown in found.shown if not shown.visits} == {str(example.path) for example in held}
    for batch, accumulate in ((1, 1), (2, 1), (4, 1), (3, 2)):
        real = len(plan(examples.examples, 0, Batching(0, batch, accumulate)))
        assert found.steps_per_epoch(batch, accumulate) == real


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
    assert a.sha256 == b.sha256 != c.sha256


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
    before = look([table(tmp_path, missing="empty")], 64)
    assert (before.near, before.unscanned) == (0, 3)
    kiln(capsys, "curate", tmp_path, "--resolution", 64)
    scanned = look([table(tmp_path, missing="empty")], 64)
    assert (scanned.near, scanned.unscanned) == (1, 0)
    assert [(one.size, one.sha256) for one in scanned.shown] == [(one.size, one.sha256) for one in before.shown]
    save(tmp_path, b=scene(3))
    assert look([table(tmp_path, missing="empty")], 64).unscanned == 1, "it is another picture now"
    kiln(capsys, "curate", tmp_path, "--resolution", 64, "--apply")
    assert look([table(tmp_path, missing="empty")], 64).near == 0


def index_of(folder, count, copies=()):
    """An index of `count` empty files as `kiln curate` would leave it, and pairs of them that are one picture."""
    measures = Measures(0.0, None, (0, 0, 0, 0), 0.0, 0.0, 0.0, 0, 0.0, 1.0)
    rows = []
    for number in range(count):
        path = folder / f"{number:04d}.png"
        path.touch()
        status = path.stat()
        size = Size(1024, 1024) if number % 3 else Size(832, 1216)
        found = Picture(path.name, content(number), size, status.st_size, "PNG", False, measures, b"")
        rows.append((found, b"", status.st_mtime_ns))
    index = Index(folder)
    index.store(rows)
    for one, two in copies:
        index.relate(content(one), content(two), ((0.0, 0.0, 1.0, 1.0), False), Relation("copy"))
    index.close()


def test_pictures_that_the_index_knows_are_not_opened(tmp_path, monkeypatch):
    """A thousand of them, whose files are empty: nothing could be learned by looking."""
    index_of(tmp_path, 1000, copies=[(1, 2)])
    monkeypatch.setattr("lorakiln.advise.pictures.picture_size", lambda path: pytest.fail(f"{path} was opened"))
    monkeypatch.setattr("lorakiln.advise.pictures.sha256", lambda path: pytest.fail(f"{path} was read"))
    found = look([table(tmp_path, resolution=1024, bucket_step=64, heldout=0.1)], 1024)
    assert (found.count, found.unscanned, found.near, found.exact) == (1000, 0, 1, True)
    assert set(found.buckets()) == {Size(1024, 1024), Size(832, 1216)} and sum(found.buckets().values()) == 900


def test_too_many_unknown_pictures_are_read_only_where_they_could_be_copies(tmp_path, monkeypatch):
    for number in range(4):
        draw(tmp_path / f"{number}.bmp", (64, 64 + number), caption="x")
    (tmp_path / "copy.bmp").write_bytes((tmp_path / "0.bmp").read_bytes())
    monkeypatch.setattr("lorakiln.advise.pictures.READ", 0)
    found = look([table(tmp_path, missing="empty")], 64)
    assert [bool(one.sha256) for one in found.shown] == [True, False, False, False, True] and found.exact
    assert found.shown[0].sha256 == found.shown[-1].sha256
    held = look([table(tmp_path, missing="empty", heldout=1)], 64)
    assert sum(not one.visits for one in held.shown) == 1 and not held.exact


def test_masks_inside_the_folder_are_no_pictures(tmp_path):
    draw(tmp_path / "a.png", caption="x")
    draw(tmp_path / "masks" / "a.png")
    found = look([table(tmp_path, masks=str(tmp_path / "masks"))], 64)
    assert [one.caption for one in found.shown] == ["x"]


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
