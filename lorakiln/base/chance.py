"""Chance as a function of where it is used, so that a resumed run draws what the whole run would have drawn."""

import hashlib
import random


def key(seed: int, use: str, *where: int) -> int:
    """A 63-bit seed for one draw: the run's seed, what it is for, and where (global step or epoch, slot).

    Streams remember; a key does not. Step 900 can be drawn without the 899 before it, on any number of processes.
    """
    text = ":".join([str(seed), use, *map(str, where)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def rng(seed: int, use: str, *where: int) -> random.Random:
    """Python's generator for one draw; tensors take theirs from `diffusion.noise.generator`."""
    return random.Random(key(seed, use, *where))
