"""Captions to text states: encoded once and kept while the text encoders are frozen, anew at each step otherwise."""

from collections.abc import Iterable, Sequence

import torch

from lorakiln.data.cache import TextCache
from lorakiln.families.family import Family, TextStates

CHUNK = 77  # tokens a chunk of a prompt


def live(family: Family, captions: Sequence[str]) -> TextStates:
    """Encode now, with gradients where an adapter is trained."""
    return family.encode_text(family.tokenize(captions))


class FrozenText:
    """Text states from a cache; called like `live`, and equal to it."""

    def __init__(self, family: Family, *, cached: bool, megabytes: int):
        self.family = family
        self.cache = TextCache(
            "memory" if cached else "off",
            self._encode,
            tokens=self._tokens,
            encoders=family.digest("te1") + family.digest("te2"),
            limit=megabytes * 2**20,
        )

    def fill(self, captions: Iterable[str]) -> None:
        """Encode ahead what is not kept yet."""
        self.cache.fill(captions)

    def __call__(self, captions: Sequence[str]) -> TextStates:
        states = [self.cache.read(caption) for caption in captions]
        longest = max(len(state["context"]) for state in states)
        context_BTC = torch.stack([self._padded(state["context"], longest) for state in states])
        pooled_BC = torch.stack([state["pooled"] for state in states])
        return TextStates(context_BTC, pooled_BC).to(self.family.device)

    def _padded(self, context_TC: torch.Tensor, length: int) -> torch.Tensor:
        """A shorter prompt gets chunks of the empty prompt, as when it is encoded beside a longer one."""
        missing = (length - len(context_TC)) // CHUNK
        return torch.cat([context_TC, *[self.cache.read("")["context"]] * missing]) if missing else context_TC

    def _encode(self, captions: list[str]) -> list[dict[str, torch.Tensor]]:
        with torch.no_grad():
            states = live(self.family, captions)
        return [
            {"context": context.cpu(), "pooled": pooled.cpu()}
            for context, pooled in zip(states.context_BTC, states.pooled_BC, strict=True)
        ]

    def _tokens(self, caption: str) -> str:
        tokens = self.family.tokenize([caption])
        return f"{tokens.first_BNT.tolist()} {tokens.second_BNT.tolist()}"
