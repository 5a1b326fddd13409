"""Groups of copies: complete, with the best one named, and near poses told apart."""

import random
import shutil
import time

import pytest
from PIL import Image, ImageOps

from benchmarks.planted import CHANGES
from lorakiln.base.records import Size
from lorakiln.curate import advice, duplicates
from lorakiln.curate.compare import Relation
from lorakiln.curate.duplicates import find
from lorakiln.curate.index import Index
from lorakiln.curate.picture import Measures, Picture
from lorakiln.curate.scan import scan
from tests.curate.pictures import figure, save, scene


def groups_of(folder, **wanted):
    found = scan(folder)
    return find(found.pictures, found.index, **wanted)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Five scenes, each with eight kinds of copies, and five strangers."""
    folder = tmp_path_factory.mktemp("planted")
    for seed in range(5):
        rng, picture = random.Random(seed), scene(seed)
        picture.save(folder / f"{seed}_original.png")
        shutil.copy(folder / f"{seed}_original.png", folder / f"{seed}_exact.png")
        picture.save(folder / f"{seed}_reencoded.jpg", quality=50)
        for kind, change in CHANGES.items():
            change(picture, rng).save(folder / f"{seed}_{kind}.png")
        scene(100 + seed).save(folder / f"stranger_{seed}.png")
    return folder


def test_all_eight_kinds_of_copies_are_grouped_and_nothing_else(planted):
    found = groups_of(planted)
    assert len(found.groups) == 5
    for group in found.groups:
        assert len(group.names) == 9
        assert {name[0] for name in group.names} == {group.best.name[0]}


def test_the_kept_copy_is_the_original_and_never_a_spoilt_one(planted):
    kept = [group.best.name.partition("_")[2] for group in groups_of(planted).groups]
    assert sum(name in ("original.png", "exact.png") for name in kept) >= 4
    assert not set(kept) & {"cropped.png", "padded.png", "watermarked.png", "recoloured.png", "reencoded.jpg"}


def test_each_copy_says_what_it_is(planted):
    groups = groups_of(planted).groups
    said = {copy.picture.name.partition("_")[2]: copy.what for copy in groups[0].copies}
    assert "exact copy" in (said.get("exact.png"), said.get("original.png"))
    assert "cropped" in said["cropped.png"] and "resized" in said["resized.png"] and said["mirrored.png"] == "mirrored"
    assert said["reencoded.jpg"] == "saved again as JPEG" and "framed" in said["padded.png"]


def test_a_second_look_takes_the_remembered_comparisons(planted, monkeypatch):
    first = groups_of(planted)
    monkeypatch.setattr("lorakiln.curate.duplicates.relate", None)  # calling it would fail
    assert groups_of(planted) == first


def test_near_poses_are_apart(tmp_path):
    save(tmp_path, a=figure(), b=figure(skin="#a57939"), c=figure(mouth="frown"), d=scene(1), e=scene(2))
    found = groups_of(tmp_path)
    assert not found.groups
    assert [{picture.name for picture in poses.pictures} for poses in found.near] == [{"a.png", "b.png", "c.png"}]


def test_near_poses_of_copies_are_named_once(tmp_path):
    picture = figure()
    save(tmp_path, a=picture, b=figure(mouth="frown"))
    picture.save(tmp_path / "c.jpg", quality=60)
    found = groups_of(tmp_path)
    assert [group.names for group in found.groups] == [["a.png", "c.jpg"]]
    assert [[picture.name for picture in poses.pictures] for poses in found.near] == [["a.png", "b.png"]]


def test_many_exact_copies_are_one_group(tmp_path):
    for number in range(30):
        scene(1, 64).save(tmp_path / f"{number:02}.png")
    found = groups_of(tmp_path)
    assert [len(group.names) for group in found.groups] == [30]


def test_the_larger_copy_is_kept_but_not_an_enlarged_one(tmp_path):
    picture = scene(4, 400)
    save(tmp_path, whole=picture, half=picture.resize((200, 200)), huge=picture.resize((1000, 1000), 3))
    assert [group.best.name for group in groups_of(tmp_path).groups] == ["whole.png"]


def test_a_mirrored_crop_is_still_a_copy(tmp_path):
    picture = scene(6, 400)
    save(tmp_path, whole=picture, part=ImageOps.mirror(picture.crop((30, 40, 360, 370))))
    (group,) = groups_of(tmp_path).groups
    assert group.best.name == "whole.png" and group.copies[0].what == "cropped to 82%, mirrored"


def test_plain_pictures_of_other_colours_are_not_copies(tmp_path):
    save(tmp_path, a=Image.new("RGB", (64, 64), "red"), b=Image.new("RGB", (64, 64), "blue"), c=scene(1))
    assert not groups_of(tmp_path).groups


def test_of_equal_files_the_shortest_name_is_kept(tmp_path):
    save(tmp_path, **{"cat": scene(1), "cat (1)": scene(1), "a copy of cat": scene(1), "dog": scene(2)})
    assert [group.names for group in groups_of(tmp_path).groups] == [["cat.png", "cat (1).png", "a copy of cat.png"]]


@pytest.mark.parametrize("way", ["mirrored", "recoloured"])
def test_of_three_the_odd_one_out_is_not_kept(tmp_path, way):
    picture = scene(8, 300)
    save(tmp_path, a=CHANGES[way](picture, random.Random(5)), picture=picture)
    picture.save(tmp_path / "picture.bmp")
    picture.save(tmp_path / "picture again.webp", quality=95)
    picture.rotate(0).save(tmp_path / "picture more.jpg", quality=95)
    (group,) = groups_of(tmp_path).groups
    assert len(group.names) == 5 and group.best.name in ("picture.png", "picture.bmp")


@pytest.mark.parametrize("way", ["watermarked", "padded"])
@pytest.mark.parametrize("keep, best", [((), "large.png"), (("small",), "clean.png")])
def test_a_picture_that_would_be_rejected_is_not_the_one_to_keep(tmp_path, way, keep, best):
    picture = scene(11, 400)
    save(tmp_path, clean=picture.resize((100, 100)), large=CHANGES[way](picture, random.Random(1)))
    (group,) = groups_of(tmp_path, unfit=lambda one: advice.unfit(one, 256, keep)).groups
    assert group.best.name == best


def test_another_first_guess_is_another_comparison(tmp_path):
    picture = scene(6, 400)
    save(tmp_path, part=picture.crop((0, 0, 320, 320)), whole=picture)
    found = scan(tmp_path)
    comparer = duplicates._Comparer(sorted(found.pictures, key=lambda one: -one.pixels), found.index)
    assert comparer.relation(0, 1, box=(0.6, 0.6, 1.0, 1.0)).kind != "copy"
    found.index.flush()
    assert comparer.relation(0, 1, box=(0.0, 0.0, 0.8, 0.8)).kind == "copy"


def test_each_long_stage_tells_how_far_it_is(tmp_path):
    save(tmp_path, a=scene(1), b=scene(1, 300), c=scene(2))
    told = {}
    groups_of(tmp_path, stage=lambda name: lambda done, total: told.update({name: (done, total)}))
    assert list(told) == ["look up", "compare"] and all(done == total for done, total in told.values())


def test_grouping_grows_with_the_pictures_and_not_with_their_square(tmp_path, monkeypatch):
    count = 12_000
    measures = Measures(1.0, None, (0, 0, 0, 0), 0.0, 0.1, 50.0, 100, 0.0, 1.0)
    names = [f"{at:05}" for at in range(count)]
    pictures = [Picture(name, name, Size(64, 64), 1, "PNG", False, measures, b"") for name in names]
    edges = [(at, at + 1, Relation("copy", share=0.0)) for at in range(0, count, 2)]
    edges += [(at, at + 2, Relation("near", likeness=0.9)) for at in range(0, count - 2, 4)]
    monkeypatch.setattr(duplicates, "_compared", lambda *_: edges)
    began = time.process_time()
    found = find(pictures, Index(tmp_path))
    assert len(found.groups) == count // 2 and len(found.near) == count // 4
    assert time.process_time() - began < 3  # a pass over all pictures for each of them takes ten and more
