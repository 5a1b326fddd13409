"""Names of diffusers, peft and kohya's tools lead to kohya's, with the scale that their writer meant."""

import pytest
import torch

from lorakiln.adapters.files.names import to_kohya
from lorakiln.adapters.files.read import AdapterFile
from lorakiln.adapters.inject import inject_file
from lorakiln.base.errors import UserError

PLACES = {
    "unet": {"mid_block.attentions.0.proj_in": "lora_unet_a", "down_blocks.0.attn1.to_out.0": "lora_unet_b"},
    "te1": {f"encoder.layers.{n}.mlp.fc1": f"lora_te1_{n}" for n in range(2)},
    "te2": {f"encoder.layers.{n}.mlp.fc1": f"lora_te2_{n}" for n in range(4)},
}
A, B, C = "mid_block.attentions.0.proj_in", "down_blocks.0.attn1", "encoder.layers.{}.mlp.fc1"
FOUND = {
    f"unet.{A}.lora_A.weight": "lora_unet_a.lora_down.weight",
    f"unet.{A}.lora_B.default.weight": "lora_unet_a.lora_up.weight",
    f"{A}.lora.up.weight": "lora_unet_a.lora_up.weight",
    f"unet.{A}.lora_linear_layer.down.weight": "lora_unet_a.lora_down.weight",
    f"base_model.model.{A}.lora_A.weight": "lora_unet_a.lora_down.weight",
    f"unet.{A}.alpha": "lora_unet_a.alpha",
    f"unet.{A}.lora_magnitude_vector": "lora_unet_a.dora_scale",
    f"unet.{B}.processor.to_out_lora.down.weight": "lora_unet_b.lora_down.weight",
    "lora_unet_down_blocks_0_attn1_to_out_0.alpha": "lora_unet_b.alpha",
    "lora_unet_a.alpha": "lora_unet_a.alpha",
    f"text_encoder.text_model.{C.format(0)}.lora_A.weight": "lora_te1_0.lora_down.weight",
    f"text_encoder_2.{C.format(0)}.lora_A.weight": "lora_te2_0.lora_down.weight",
    f"lora_te2_text_model_{C.format(3).replace('.', '_')}.lora_up.weight": "lora_te2_3.lora_up.weight",
    f"base_model.model.text_model.{C.format(1)}.lora_A.weight": "lora_te1_1.lora_down.weight",
    f"base_model.model.{C.format(3)}.lora_A.weight": "lora_te2_3.lora_down.weight",  # too deep for the first encoder
    "unet.nowhere.lora_A.weight": "unet.nowhere.lora_A.weight",
    f"unet.{A}.weight": f"unet.{A}.weight",
}


@pytest.mark.parametrize("name", FOUND)
def test_names_of_other_tools_are_understood(name):
    assert set(to_kohya(AdapterFile({name: torch.ones(2, 3)}, {}), PLACES)) == {FOUND[name]}


def test_a_text_encoder_saved_by_peft_alone_goes_by_what_peft_was_put_on():
    names = [f"base_model.model.{C.format(0)}.lora_A.weight"]
    for kind, part in (("CLIPTextModelWithProjection", "te2"), ("CLIPTextModel", "te1"), ("Unknown", "te1")):
        file = AdapterFile({name: torch.ones(2, 3) for name in names}, {}, {"auto_mapping": {"base_model_class": kind}})
        assert {name.partition(".")[0] for name in to_kohya(file, PLACES)} == {f"lora_{part}_0"}


def test_one_deep_layer_puts_the_whole_file_on_the_second_encoder():
    tensors = {f"base_model.model.{C.format(n)}.lora_A.weight": torch.ones(2, 3) for n in range(3)}
    assert {name.partition(".")[0] for name in to_kohya(AdapterFile(tensors, {}), PLACES)} == {
        f"lora_te2_{n}" for n in range(3)
    }


def test_alpha_follows_pefts_patterns_on_its_own_paths():
    tensors = {f"base_model.model.text_model.{C.format(n)}.lora_A.weight": torch.ones(4, 3) for n in range(2)}
    config = {"lora_alpha": 3, "alpha_pattern": {rf"text_model.{C.format(1)}": 5}, "use_rslora": True}
    named = to_kohya(AdapterFile(tensors, {}, config), PLACES)
    assert [named[f"lora_te1_{n}.alpha"].item() for n in range(2)] == [3 * 4**0.5, 5 * 4**0.5]
    assert "lora_te1_0.alpha" not in to_kohya(AdapterFile(tensors, {}), PLACES)


def test_a_magnitude_without_a_lora_beside_it_is_one_line():
    tensors = {"lora_unet_a.dora_scale": torch.ones(6), "lora_unet_a.hada_w1_a": torch.ones(6, 2)}
    tensors |= {"lora_unet_a.hada_w1_b": torch.ones(2, 6), "lora_unet_a.hada_w2_a": torch.ones(6, 2)}
    named = to_kohya(AdapterFile(tensors | {"lora_unet_a.hada_w2_b": torch.ones(2, 6)}, {}), PLACES)
    holder = torch.nn.Module()
    holder.layer = torch.nn.Linear(6, 6)
    with pytest.raises(UserError, match=r"lora_unet_a\.dora_scale: shape \(6,\) fits neither axis"):
        inject_file({"unet": holder}, {"unet": {"layer": "lora_unet_a"}}, named)
