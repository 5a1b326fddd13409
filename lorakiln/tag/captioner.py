"""Short sentences from a local image-to-text model: any transformers folder of that kind (BLIP, GIT, ...)."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from lorakiln.base.errors import UserError

_WORDS = 40  # tokens a sentence at most


class TransformersCaptioner:
    """A loaded model. The same picture always gets the same sentence: nothing is sampled."""

    batch = 4

    def __init__(self, folder: Path):
        folder = Path(folder).expanduser()
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder}: holds no config.json; a captioner is a transformers image-to-text model folder")
        try:
            from transformers import AutoModelForImageTextToText, AutoProcessor

            self._processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
            self._model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True).eval()
        except (OSError, ValueError, KeyError, ImportError) as error:
            reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
            raise UserError(f"{folder}: cannot be loaded as a captioner ({reason})") from None

    def sentences(self, pictures: Sequence[Image.Image]) -> list[str]:
        """One sentence a picture, beginning with a capital and ending with a full stop."""
        import torch

        inputs = self._processor(images=list(pictures), return_tensors="pt")
        with torch.inference_mode():
            ids = self._model.generate(**inputs, max_new_tokens=_WORDS, do_sample=False)
        return [tidy(text) for text in self._processor.batch_decode(ids, skip_special_tokens=True)]


def tidy(text: str) -> str:
    """One line, a capital first, a full stop last; "" stays ""."""
    text = " ".join(text.split()).rstrip(" .,;")
    return f"{text[0].upper()}{text[1:]}." if text else ""
