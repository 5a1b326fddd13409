"""A local image-to-text model writes sentences; a tiny real one is made for the test."""

import pytest
from PIL import Image

from lorakiln.base.errors import UserError
from lorakiln.tag.captioner import TransformersCaptioner, tidy
from lorakiln.tag.folder import read, told
from tests.cli.verbs import kiln
from tests.tag import models


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An untrained BLIP of a few thousand weights, with a vocabulary of a dozen words."""
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    folder = tmp_path_factory.mktemp("captioner")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]", "a", "red", "blue", "hat", "sky"]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    text = {
        "vocab_size": 12, "hidden_size": 16, "encoder_hidden_size": 16, "intermediate_size": 16, "projection_dim": 8,
        "num_hidden_layers": 1, "num_attention_heads": 2, "bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3,
        "pad_token_id": 0,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "projection_dim": 8, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 16, "patch_size": 8,
    }  # fmt: skip
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision))
    model.save_pretrained(folder)
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    BlipProcessor(BlipImageProcessor(size={"height": 16, "width": 16}), tokenizer).save_pretrained(folder)
    return folder


def test_the_same_picture_gets_the_same_sentence(model):
    captioner = TransformersCaptioner(model)
    pictures = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    first = captioner.sentences(pictures)
    assert len(first) == 2 and first == captioner.sentences(pictures)
    assert all(isinstance(sentence, str) for sentence in first)


def test_half_the_pictures_get_a_sentence_and_tags_stay(tmp_path):
    class Fixed:
        batch = 2

        def sentences(self, pictures):
            return [f"A picture of {picture.width} pixels." for picture in pictures]

    for number in range(6):
        Image.new("RGB", (10 + number, 8)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text("hat")
    whole = read(tmp_path)
    found, failed = told(whole, whole.captions, Fixed(), 0.5)
    assert {name: one.sentence for name, one in found.items()} == {
        f"{n}.png": f"A picture of {10 + n} pixels." for n in (1, 3, 5)
    }
    assert all(one.tags == ("hat",) for one in found.values()) and not failed


def test_tags_and_sentences_are_written_in_one_run_and_the_share_is_told(model, tmp_path, capsys):
    tagger = models.write(tmp_path / "tagger", models.Colours())
    for number in range(4):
        (tmp_path / "set").mkdir(exist_ok=True)
        Image.new("RGB", (20, 20), (255, 0, 0)).save(tmp_path / "set" / f"{number}.png")
    words = ["--tagger", tagger, "--captioner", model, "--sentences", 0.5, "--trigger", "znk", "--threshold", 0.9]
    code, said = kiln(capsys, "tag", tmp_path / "set", *words)
    told = TransformersCaptioner(model).sentences([Image.new("RGB", (20, 20), (255, 0, 0))])[0]
    texts = [path.read_text() for path in sorted((tmp_path / "set").glob("*.txt"))]
    assert code == 0 and texts == ["znk, red hat\n", f"znk, red hat\nznk, {told}\n"] * 2
    assert "2 of 4 captions hold a sentence (50%)" in said.out and "4 captions written" in said.out
    kiln(capsys, "tags", tmp_path / "set", "--undo")
    assert not list((tmp_path / "set").glob("*.txt"))


def test_sentences_are_tidied():
    assert tidy("  a red   hat ,") == "A red hat."
    assert tidy("") == ""


def test_what_is_no_captioner_is_named(tmp_path):
    with pytest.raises(UserError, match=r"holds no config\.json"):
        TransformersCaptioner(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="cannot be loaded as a captioner"):
        TransformersCaptioner(tmp_path)
