"""Which parts of a picture are learned: its transparency, or a greyscale picture of the same name, in the same crop."""

import torch
from torch import Tensor

from lorakiln.base import images
from lorakiln.base.errors import UserError
from lorakiln.base.records import Crop
from lorakiln.data.dataset import Example


class Masks:
    """Masks at latent resolution (`factor` pixels a latent), remembered after the first read."""

    def __init__(self, factor: int = 8):
        self.factor = factor
        self._known: dict[tuple[str, Crop], Tensor] = {}

    def read(self, example: Example, crop: Crop) -> Tensor:
        """mask_1HW in fp32: 1 learned, 0 not; all 1 where the example has no mask.

        Raises UserError where a mask's aspect is not the picture's.
        """
        width, height = (side // self.factor for side in crop.target)
        if example.mask is None:
            return torch.ones(1, height, width)
        place = (str(example.mask), crop)
        mask = self._known.get(place)
        if mask is None:
            mask = self._decode(example, crop)
            if not example.spec.random_crop:  # each crop would be another entry
                self._known[place] = mask
        return mask

    def _decode(self, example: Example, crop: Crop) -> Tensor:
        assert example.mask is not None
        if example.mask == example.path:
            mask = images.alpha_mask(example.path)
            assert mask is not None, "only a picture with transparency is its own mask"
        else:
            mask = images.open_picture(example.mask, background=(0, 0, 0)).convert("L")
        if abs(mask.width * example.size.height - mask.height * example.size.width) > max(mask.size):
            raise UserError(f"{example.mask}: {mask.width}x{mask.height} pixels; the picture is {example.size}")
        return torch.from_numpy(images.to_mask(mask, crop, self.factor))
