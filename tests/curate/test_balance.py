"""A set as a whole: counts, repeats, variety, and advice that depends on the purpose."""

import pytest
from PIL import Image

from lorakiln.base.errors import UserError
from lorakiln.base.records import Crop, Size
from lorakiln.curate import balance, duplicates
from lorakiln.curate.advice import Findings, advise
from lorakiln.curate.scan import scan
from tests.curate.pictures import figure, save, scene


def square(size):
    return Crop(size, Size(256, 256), 0, 0, Size(256, 256))


def findings(folder):
    found = scan(folder)
    copies = duplicates.find(found.pictures, found.index)
    weighed = balance.weigh(found.pictures, square, lambda picture: picture.folder)
    return Findings(found.pictures, found.refused, copies, weighed)


def faults_for(purpose, given):
    return {entry.fault: entry for entry in advise(purpose, 256, given)}


def test_repeats_even_out_groups_up_to_ten():
    assert balance.even_out({"a": 40, "b": 10, "c": 1, "d": 33}) == {"a": 1, "b": 4, "c": 10, "d": 1}


def test_the_effective_number_of_equal_things_is_their_number():
    assert balance.effective([5, 5, 5, 5]) == pytest.approx(4)
    assert balance.effective([100]) == 1
    assert 1 < balance.effective([99, 1]) < 1.1


def test_variety_is_high_for_scenes_and_low_for_one_figure(tmp_path):
    for number in range(12):
        save(tmp_path / "scenes", **{f"s{number}": scene(number)})
        save(tmp_path / "figures", **{f"f{number}": figure(coat=f"#{number:x}05080", side=200 + number)})
    various, same = (findings(tmp_path / name).balance for name in ("scenes", "figures"))
    assert various.variety > 0.1 > same.variety
    assert same.redundant[0][1] > 0.95 > various.redundant[0][1]


def test_sources_are_told_by_name_and_format(tmp_path):
    for number in range(4):
        scene(number, 64).save(tmp_path / f"scan_{number}.png")
        scene(10 + number, 64).save(tmp_path / f"photo {number}.jpg")
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


def test_an_unknown_purpose_is_refused(tmp_path):
    save(tmp_path, a=scene(1), b=scene(2))
    with pytest.raises(UserError, match="unknown purpose 'charcter'; did you mean 'character'"):
        advise("charcter", 256, findings(tmp_path))
