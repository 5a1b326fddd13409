"""Captions to text states: encoded once and kept while the text encoders are frozen, anew at each step otherwise."""

from collections.abc import Iterable, Sequence

import torch

from lorakiln.data.cache import TextCache
from lorakiln.families.family import Family, TextStates

CHUNK = 77  # tokens a chunk of a prompt
GPU_BATCH = 16  # captions encoded at once, where one alone leaves a GPU idle


def live(family: Family, captions: Sequence[str]) -> TextStates:
    """Encode now, with gradients where an adapter is trained."""
    return family.encode_text(family.tokenize(captions))


class FrozenText:
    """Text states from a cache; called like `live`, and equal to it."""

    def __init__(self, family: Family, *, cached: bool, megabytes: int):
        self.family, self.cached = family, cached
        self.cache = TextCache(
            "memory" if cached else "off",
            self._encode,
            tokens=self._tokens,
            encoders=family.digest("te1") + family.digest("te2"),
            limit=megabytes * 2**20,
            batch=GPU_BATCH if family.device.type == "cuda" else 1,
        )

    def fill(self, captions: Iterable[str]) -> None:
        """Encode ahead what is not kept yet of the captions that come next, in their order."""
        captions = list(captions)
        if len({self._chunks(caption) for caption in captions}) > 1:  # short ones are padded with the empty prompt
            captions.insert(0, "")
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
        """States as each caption alone has them. Those of one length share a batch."""
        entries: dict[int, dict[str, torch.Tensor]] = {}
        lengths = [self._chunks(caption) for caption in captions]
        for length in dict.fromkeys(lengths):
            rows = [row for row, found in enumerate(lengths) if found == length]
            # filled up to one size: a GPU chooses its kernels, and so the last bits, by the size of a batch
            batch = [captions[row] for row in rows] + [""] * (self.cache.batch - len(rows))
            with torch.no_grad():
                states = live(self.family, batch).to("cpu")
            for row, context, pooled in zip(rows, states.context_BTC, states.pooled_BC, strict=False):
                entries[row] = {"context": context.clone(), "pooled": pooled.clone()}
        return [entries[row] for row in range(len(captions))]

    def _chunks(self, caption: str) -> int:
        return self.family.tokenize([caption]).first_BNT.shape[1]

    def _tokens(self, caption: str) -> str:
        tokens = self.family.tokenize([caption])
        return f"{tokens.first_BNT.tolist()} {tokens.second_BNT.tolist()}"
