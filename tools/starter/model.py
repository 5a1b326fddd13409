"""The starter's architecture: SDXL's own build, narrower and with fewer layers, and how it is used."""

import functools

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from .places import RESOLUTION, TOKENIZER

TEXT_WIDTHS = (48, 80)  # like SDXL's 768 and 1280, they differ, and together make the cross width
LATENT_SIZE = RESOLUTION // 8
TOKENS = 77

UNET = {
    "sample_size": LATENT_SIZE,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [32, 64, 128],
    "layers_per_block": 2,
    "transformer_layers_per_block": [1, 1, 2],
    "attention_head_dim": [2, 4, 8],  # diffusers' name for the number of heads; each is 16 wide
    "use_linear_projection": True,
    "cross_attention_dim": sum(TEXT_WIDTHS),
    "norm_num_groups": 8,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": TEXT_WIDTHS[1] + 6 * 32,
}
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
}


def text_config(number: int) -> dict:
    """Configuration of text encoder 1 or 2."""
    width = TEXT_WIDTHS[number - 1]
    return {
        "vocab_size": 49408,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": 3,
        "num_attention_heads": width // 16,
        "max_position_embeddings": TOKENS,
        "projection_dim": width,
        "hidden_act": "quick_gelu" if number == 1 else "gelu",
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 49407 if number == 1 else 0,
    }


@functools.cache
def tokenizers() -> tuple[CLIPTokenizer, CLIPTokenizer]:
    """CLIP's tokenizer twice: padding with <|endoftext|>, and with "!", as SDXL has it."""
    files = {"vocab": str(TOKENIZER / "vocab.json"), "merges": str(TOKENIZER / "merges.txt")}
    return CLIPTokenizer(**files, pad_token="<|endoftext|>"), CLIPTokenizer(**files, pad_token="!")


class Drawer(nn.Module):
    """UNet and both text encoders, trained as one."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel(**UNET)
        self.text_1 = CLIPTextModel(CLIPTextConfig(**text_config(1)))
        self.text_2 = CLIPTextModelWithProjection(CLIPTextConfig(**text_config(2)))

    def text(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """SDXL's text conditioning: penultimate states side by side, and the pooled projection."""
        states, pooled = [], None
        for tokenizer, encoder in zip(tokenizers(), (self.text_1, self.text_2), strict=True):
            ids_BT = tokenizer(
                captions, padding="max_length", max_length=TOKENS, truncation=True,
                return_tensors="pt",
            ).input_ids  # fmt: skip
            out = encoder(ids_BT, output_hidden_states=True)
            states.append(out.hidden_states[-2])
            pooled = getattr(out, "text_embeds", None)
        return torch.cat(states, -1), pooled

    def forward(self, noisy_BCHW, time_B, captions: list[str], time_ids_B6: Tensor) -> Tensor:
        """What the UNet predicts (noise, or velocity) for these captions."""
        states_BTD, pooled_BD = self.text(captions)
        added = {"text_embeds": pooled_BD, "time_ids": time_ids_B6}
        return self.unet(noisy_BCHW, time_B, states_BTD, added_cond_kwargs=added).sample


@functools.cache
def alphas_cumprod() -> Tensor:
    """The share of signal left in the variance at each of the 1000 steps."""
    return DDPMScheduler(**SCHEDULER).alphas_cumprod


def plain_time_ids(count: int) -> Tensor:
    """Time ids of an uncropped picture."""
    return torch.tensor([[RESOLUTION, RESOLUTION, 0, 0, RESOLUTION, RESOLUTION]] * count).float()
