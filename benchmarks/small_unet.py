"""The small SDXL-shaped UNet that the step benchmarks run: channels 64/128/256, transformer depths 1/2/4."""

import torch
from diffusers import UNet2DConditionModel

ADAPTED_LINEARS = 362  # kohya's default targets in this UNet


def small_unet(seed: int = 0) -> UNet2DConditionModel:
    """A frozen random fp32 UNet with SDXL's topology and conditioning, 1/5 of its width."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(64, 128, 256),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 4),
        attention_head_dim=(2, 4, 8),
        cross_attention_dim=256,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=256,
    )
    return unet.requires_grad_(False)


def inputs(batch: int = 2, seed: int = 1) -> dict[str, torch.Tensor | dict[str, torch.Tensor]]:
    """One forward's arguments: 32x32 latents that want a gradient, timesteps, 77 text tokens, SDXL's conditioning."""
    rng = torch.Generator().manual_seed(seed)
    return {
        "sample": torch.randn(batch, 4, 32, 32, generator=rng).requires_grad_(True),
        "timestep": torch.randint(0, 1000, (batch,), generator=rng),
        "encoder_hidden_states": torch.randn(batch, 77, 256, generator=rng),
        "added_cond_kwargs": {
            "text_embeds": torch.randn(batch, 64, generator=rng),
            "time_ids": torch.tensor([[256.0, 256, 0, 0, 256, 256]]).expand(batch, 6),
        },
    }
