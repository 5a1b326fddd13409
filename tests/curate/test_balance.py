"""A set as a whole: counts, repeats, variety, and advice that depends on the purpose."""

import pytest
from PIL import Image

from lorakiln.base.errors import UserError
from lorakiln.base.records import Crop, Size
from lorakiln.curate import balance, duplicates
from lorakiln.curate.advice import Findings, advise, staying
from lorakiln.curate.scan import scan
from tests.curate.pictures import figure, save, scene


def square(size):
    return Crop(size, Size(256, 256), 0, 0, Size(256, 256))


def findings(folder, keep=()):
    found = scan(folder)
    copies = duplicates.find(found.pictures, found.index)
    crops = {picture.name: square(picture.size) for picture in found.pictures}
    left = staying(found.pictures, copies, 256, keep)
    weighed = balance.weigh(left, crops, lambda picture: balance.Place(picture.folder))
    return Findings(found.pictures, found.refused, copies, crops, left, weighed)


def faults_for(purpose, given, keep=()):
    return {entry.fault: entry for entry in advise(purpose, 256, given, keep)}


@pytest.mark.parametrize(
    "concepts, given, wanted",
    [
        ({"a": 40, "b": 10, "c": 1, "d": 33}, {}, {"a": 1, "b": 4, "c": 10, "d": 1}),
        ({"a": 20, "b": 10}, {"a": 2, "b": 4}, {"a": 2, "b": 4}),  # even already
        ({"a": 20, "b": 10}, {"a": 10, "b": 10}, {"a": 1, "b": 2}),
        ({"a": 100, "b": 1}, {"b": 10}, {"a": 1, "b": 10}),  # as even as ten repeats make it
        ({}, {}, {}),
    ],
)
def test_repeats_even_out_groups_up_to_ten(concepts, given, wanted):
    assert balance.even_out(concepts, dict.fromkeys(concepts, 1) | given) == wanted


def test_shapes_are_counted_from_tall_to_wide():
    sizes = [Size(100, 100), Size(1920, 1080), Size(101, 100), Size(832, 1216), Size(10, 9000)]
    assert balance.aspects(sizes) == {"1:3": 1, "2:3": 1, "1:1": 2, "16:9": 1}


def test_the_effective_number_of_equal_things_is_their_number():
    assert balance.effective([5, 5, 5, 5]) == pytest.approx(4)
    assert balance.effective([100]) == 1
    assert 1 < balance.effective([99, 1]) < 1.1


def test_variety_is_high_for_scenes_and_low_for_one_figure(tmp_path):
    for number in range(12):
        save(tmp_path / "scenes", **{f"s{number}": scene(number)})
        save(tmp_path / "figures", **{f"f{number}": figure(coat=f"#{number:x}05080", side=200 + number)})
    various, same = (findings(tmp_path / name, keep=["copy"]).balance for name in ("scenes", "figures"))
    assert various.variety > 0.1 > same.variety
    assert same.redundant[0][1] > 0.95 > various.redundant[0][1]


def test_sources_are_told_by_name_and_format(tmp_path):
    for number in range(4):
        scene(number, 128).save(tmp_path / f"scan_{number}.png")
        scene(10 + number, 128).save(tmp_path / f"photo {number}.jpg")
    assert findings(tmp_path).balance.sources == pytest.approx(2, abs=0.1)


def test_concepts_are_folders_and_buckets_are_counted(tmp_path):
    for number in range(6):
        save(tmp_path / ("hat" if number else "no hat"), **{f"p{number}": scene(number)})
    found = findings(tmp_path)
    assert found.balance.concepts == {"hat": 5, "no hat": 1}
    assert found.balance.repeats == {"hat": 1, "no hat": 5}
    assert found.balance.buckets == {Size(256, 256): 6}
    assert "'no hat' 5x" in faults_for("style", found)["uneven"].text


def test_the_wanted_number_depends_on_the_purpose(tmp_path):
    for number in range(25):
        save(tmp_path, **{f"p{number}": scene(number)})
    found = findings(tmp_path)
    assert faults_for("character", found)["count"].level == "good"
    assert faults_for("style", found)["few"].level == "warn"
    assert faults_for("style", found)["few"].rule == "S1"


def test_rejects_do_not_count_as_good_pictures(tmp_path):
    for number in range(20):
        save(tmp_path, **{f"p{number}": scene(number)})
    save(tmp_path, again=scene(3), empty=Image.new("RGB", (256, 256)))
    advice = faults_for("character", findings(tmp_path))
    assert advice["copy"].names == ("again.png",) and advice["empty"].names == ("empty.png",)
    assert advice["count"].text.startswith("20 good pictures")


def test_the_numbers_are_those_of_what_stays(tmp_path):
    for number in range(4):
        save(tmp_path / "hat", **{f"p{number}": scene(number)})
        save(tmp_path / "hat", **{f"copy of p{number}": scene(number)})
        save(tmp_path / "none", **{f"q{number}": scene(10 + number)})
    found = findings(tmp_path)
    assert found.balance.concepts == {"hat": 4, "none": 4} and found.balance.buckets == {Size(256, 256): 8}
    assert {name for name, _ in found.balance.redundant} <= {picture.name for picture in found.staying}
    assert "uneven" not in faults_for("style", found)


def test_near_poses_are_counted_among_what_stays(tmp_path):
    save(tmp_path, a=figure(), b=figure(mouth="frown"), c=figure(skin="#a57939", side=90), d=scene(1))
    assert faults_for("style", findings(tmp_path))["near"].pictures == {"b.png": "like a.png"}


def test_a_kept_fault_is_a_warning_and_its_pictures_stay(tmp_path):
    save(tmp_path, a=scene(1), b=scene(1), tiny=scene(2, 64))
    kept = findings(tmp_path, keep=["copy", "small"])
    assert len(kept.staying) == 3 and len(findings(tmp_path).staying) == 1
    levels = {fault: entry.level for fault, entry in faults_for("style", kept, ["copy", "small"]).items()}
    assert (levels["copy"], levels["small"]) == ("warn", "warn")


def test_each_picture_has_its_own_reason(tmp_path):
    save(tmp_path, a=scene(1, 64), b=scene(2, 32), c=scene(3))
    small = faults_for("style", findings(tmp_path))["small"]
    assert small.pictures == {
        "a.png": "64x64: would be enlarged 4.0 times",
        "b.png": "32x32: would be enlarged 8.0 times",
    }


def test_an_unknown_purpose_is_refused(tmp_path):
    save(tmp_path, a=scene(1), b=scene(2))
    with pytest.raises(UserError, match="unknown purpose 'charcter'; did you mean 'character'"):
        advise("charcter", 256, findings(tmp_path))
    with pytest.raises(UserError, match="--keep smal: is not a reason to reject; did you mean 'small'"):
        advise("style", 256, findings(tmp_path), ["smal"])
