"""Prompts to what the UNet reads: both CLIP encoders, any number of chunks of 75 tokens.

Shapes: B prompts, N chunks of the longest prompt, T = 77 tokens a chunk (77 N after joining), C channels.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from lorakiln.families.family import TextStates, TokenIds

FOLDER = Path(__file__).parent / "config" / "tokenizer"
CHUNK = 75
BEGIN, END = 49406, 49407
# OpenAI's CLIP was padded with the end mark, OpenCLIP with id 0 ("!")
PAD_FIRST, PAD_SECOND = END, 0


@cache
def tokenizer():
    """CLIP's byte-pair tokenizer from the shipped vocabulary (MIT, OpenAI); both encoders share it but for padding."""
    from transformers import CLIPTokenizer

    # not vocab_file=: transformers 5 would take it in silence and know no word
    return CLIPTokenizer(vocab=str(FOLDER / "vocab.json"), merges=str(FOLDER / "merges.txt"))


def tokenize(prompts: Sequence[str]) -> TokenIds:
    """Ids of shape (B, N, 77) for both encoders; each chunk has its own begin and end mark.

    N is that of the longest prompt; the others get empty chunks. A cut falls wherever the 75th token is, as in the
    usual interfaces when a prompt has no comma near it.
    """
    ids_B = tokenizer()(list(prompts), add_special_tokens=False).input_ids if prompts else []
    count = max((-(-len(ids) // CHUNK) for ids in ids_B), default=1) or 1
    first, second = ([_chunks(ids, count, pad) for ids in ids_B] for pad in (PAD_FIRST, PAD_SECOND))
    shape = (len(ids_B), count, CHUNK + 2)
    return TokenIds(torch.tensor(first).reshape(shape), torch.tensor(second).reshape(shape))


def encode(first: nn.Module, second: nn.Module, tokens: TokenIds) -> TextStates:
    """The penultimate states of both encoders side by side, chunks joined along T; pooled from the first chunk.

    Padding is not masked: SDXL was trained to see it. Gradients flow to adapters inside the encoders.
    """
    first_BTC, _ = _run(first, tokens.first_BNT)
    second_BTC, pooled_BC = _run(second, tokens.second_BNT)
    assert pooled_BC is not None, "the second encoder has a projection"
    return TextStates(torch.cat([first_BTC, second_BTC.to(first_BTC)], dim=-1), pooled_BC)


def _run(encoder: nn.Module, ids_BNT: Tensor) -> tuple[Tensor, Tensor | None]:
    """(penultimate states (B, N * 77, C), projected pooled state (B, C) where the encoder has one)."""
    batch, chunks, length = ids_BNT.shape
    device = next(encoder.parameters()).device
    out = encoder(ids_BNT.reshape(batch * chunks, length).to(device), output_hidden_states=True)
    states_BTC = out.hidden_states[-2].reshape(batch, chunks * length, -1)
    pooled = getattr(out, "text_embeds", None)
    return states_BTC, None if pooled is None else pooled.reshape(batch, chunks, -1)[:, 0]


def _chunks(ids: list[int], count: int, pad: int) -> list[list[int]]:
    rows = []
    for chunk in range(count):
        piece = ids[chunk * CHUNK : (chunk + 1) * CHUNK]
        rows.append([BEGIN, *piece, END] + [pad] * (CHUNK - len(piece)))
    return rows
