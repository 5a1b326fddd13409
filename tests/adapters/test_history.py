"""What a header says after merging, resizing and renaming is true of the tensors that are there."""

import json

import pytest
import torch

from lorakiln.adapters.files import history
from lorakiln.adapters.files.metadata import metadata
from lorakiln.adapters.files.read import AdapterFile
from lorakiln.adapters.files.write import hashes
from tests.adapters.test_files import HEADER


def tensors(rank, conv_rank=0, dora=False):
    linear = {"lora_down.weight": torch.ones(rank, 6), "lora_up.weight": torch.ones(5, rank)}
    if dora:
        linear["dora_scale"] = torch.ones(1, 6)
    conv = {"lora_down.weight": torch.ones(conv_rank, 3, 3, 3), "lora_up.weight": torch.ones(5, conv_rank, 1, 1)}
    found = {f"lora_unet_a.{suffix}": tensor for suffix, tensor in linear.items()}
    return found | ({f"lora_unet_b.{suffix}": tensor for suffix, tensor in conv.items()} if conv_rank else {})


def trained(held, **changes):
    facts = metadata(HEADER) | {"ss_network_args": '{"conv_dim": "9", "rs_lora": "True"}'} | changes
    return AdapterFile(held, facts | hashes(held, facts))


def test_widths_are_those_of_the_tensors():
    found = history.widths(tensors(4, conv_rank=2))
    assert (found["ss_network_dim"], found["ss_network_alpha"]) == ("4", "4.0")
    assert json.loads(found["ss_network_args"]) == {"conv_alpha": "2.0", "conv_dim": "2"}
    assert "ss_network_args" not in history.widths(tensors(3))
    dora = json.loads(history.widths(tensors(3, dora=True))["ss_network_args"])
    assert dora == {"algo": "lora", "dora_wd": "True", "wd_on_output": "False"}


def test_a_resized_file_keeps_how_it_was_trained_and_says_what_was_done():
    file = trained(tensors(8, conv_rank=9))
    once = history.resized(file, tensors(2, conv_rank=1), rank=2, energy=0.0)
    assert (
        json.loads(once["ss_network_args"]) == {"conv_alpha": "1.0", "conv_dim": "1"} and once["ss_network_dim"] == "2"
    )
    for key in ("lorakiln.recipe", "lorakiln.dataset_hash", "ss_tag_frequency", "ss_epoch", "modelspec.trigger_phrase"):
        assert once[key] == file.metadata[key], key
    assert not any(key.startswith("sshs_") for key in once), "the old tensors' hashes"
    again = history.resized(AdapterFile(tensors(2), once), tensors(1), rank=0, energy=0.5)
    first, second = history.steps(again)
    assert first == {"verb": "resize", "rank": 2, "of": file.metadata["sshs_model_hash"]}
    assert (second["verb"], second["energy"]) == ("resize", 0.5) and "rank" not in second


def test_a_merged_file_says_what_it_is_of_and_nothing_of_a_training():
    one, two = trained(tensors(4)), trained(tensors(2), **{"modelspec.trigger_phrase": "cat", "ss_v2": "True"})
    found = history.merged([(one, 0.5), (two, 1.0)], tensors(6), rank=0)
    assert found["modelspec.trigger_phrase"] == "emoji, cat" and found["ss_network_dim"] == "6"
    assert found["lorakiln.base_hash"] == "b" * 64 and "ss_v2" not in found, "they do not agree on it"
    assert not {"lorakiln.recipe", "lorakiln.dataset_hash", "ss_tag_frequency", "ss_epoch", "ss_output_name"} & set(
        found
    )
    (step,) = history.steps(found)
    sources = [{"title": "emoji", "hash": file.metadata["sshs_model_hash"]} for file in (one, two)]
    assert step == {"verb": "merge", "of": [sources[0] | {"strength": 0.5}, sources[1] | {"strength": 1.0}]}


def test_other_names_leave_the_header_but_for_the_widths():
    file = trained(tensors(4))
    theirs = history.renamed(file, tensors(4), kohya=False)
    assert file.metadata.items() >= theirs.items() and not any("network" in key or "sshs" in key for key in theirs)
    back = AdapterFile(tensors(4), theirs | {"format": "pt", "lora_adapter_metadata": "{}"})
    ours = history.renamed(back, tensors(4), kohya=True)
    assert ours == theirs | {key: file.metadata[key] for key in ("ss_network_module",)} | history.widths(tensors(4))
    assert history.renamed(file, tensors(4), kohya=True)["ss_network_alpha"] == "2.0", "kohya's own stay"


@pytest.mark.parametrize("text", ["", "[", "{}", "[1]"])
def test_a_history_that_cannot_be_read_is_none(text):
    assert history.steps({history.HISTORY: text}) == []
