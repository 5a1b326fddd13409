"""Settings of the pictures drawn before, during and after training, always from the same prompts and seeds."""

from typing import Literal

from lorakiln.base.settings.field import Section, setting


class Sample(Section):
    prompts: list[str] = setting(
        list, "Prompts, each with kohya's flags if wanted (--w --h --d --s --l --n).", effect="log"
    )
    file: str = setting("", "A file with one prompt a line, with the same flags.", effect="log")
    epochs: int = setting(0, "Draw every so many epochs; 0: not by epochs.", effect="log", low=0)
    steps: int = setting(0, "Draw every so many steps; 0: not by steps.", effect="log", low=0)
    sampler: Literal["euler", "euler_a", "dpmpp_2m"] = setting("euler", "The sampler.", effect="log")
    count: int = setting(25, "Sampling steps a picture.", effect="log", low=1, high=1000)
    cfg: float = setting(6.0, "Guidance scale; 1: none.", effect="log", low=1.0, high=50.0)
    rescale: float = setting(
        0.0, "CFG rescale against over-exposure; 0.7 suits zero-terminal-SNR models.", effect="log", low=0.0, high=1.0
    )
    width: int = setting(0, "Width in pixels; 0: the base's own.", effect="log", low=0)
    height: int = setting(0, "Height in pixels; 0: the base's own.", effect="log", low=0)
    negative: str = setting("", "Negative prompt.", effect="log")
    seed: int = setting(1, "Seed of the first prompt; the next one's is one higher, and so on.", effect="log", low=0)
