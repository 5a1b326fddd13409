"""The bases people train on: how each is prompted, sampled and recognised."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Profile:
    """`quality` goes before a prompt, `negative` is its negative prompt; `marks` are words in file names or titles.

    `subjects` are things it surely knows, to see a style on.
    `sha256` holds whole-file hashes of the published files, as a Hugging Face cache names its files by.
    """

    name: str
    title: str
    quality: str
    negative: str
    evidence: tuple[str, ...]
    marks: tuple[str, ...] = ()
    prediction: Literal["epsilon", "v"] = "epsilon"
    ztsnr: bool = False
    sampler: str = "euler_a"
    cfg: float = 6.0
    rescale: float = 0.0
    resolution: int = 1024
    sha256: tuple[str, ...] = ()
    after: str = ""  # what its own captions end with
    dialect: str = field(default="tags")
    subjects: tuple[str, ...] = ("1girl, solo, portrait, smile", "no humans, scenery, mountain, sky")


STARTER_SUBJECTS = ("red heart, large, white background", "crying face, large, pink background")
PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "pony", "Pony Diffusion V6 XL", "score_9, score_8_up, score_7_up, source_anime",
            "score_4, score_5, score_6, source_pony, lowres, watermark", ("B1",), ("pony", "pdxl", "autismmix"),
            cfg=7.0, sha256=("67ab2fd8ec439a89b3fedb15cc65f54336af163c7eb5e4f2acc98f090a29b0b3",),
        ),
        Profile(
            "noob-v", "NoobAI XL v-prediction", "masterpiece, best quality, newest, absurdres, highres",
            "nsfw, worst quality, old, early, low quality, lowres, signature, username, logo", ("B3",),
            ("noobaixlnaixl_vpred", "noobai.*v.?pred", "noob.*vpred"), prediction="v", ztsnr=True, sampler="euler",
            cfg=5.0, rescale=0.7,
        ),
        Profile(
            "noob-eps", "NoobAI XL epsilon", "masterpiece, best quality, newest, absurdres, highres",
            "nsfw, worst quality, old, early, low quality, lowres, signature, username, logo", ("B3",), ("noob",),
            cfg=5.5,
        ),
        Profile(
            "animagine", "Animagine XL", "masterpiece, high score, great score, absurdres",
            "lowres, bad anatomy, bad hands, text, error, worst quality, low quality, low score, watermark", ("B3",),
            ("animagine",), cfg=5.5,
        ),
        Profile(
            "illustrious", "Illustrious XL", "masterpiece, best quality, amazing quality",
            "worst quality, bad quality, lowres, jpeg artifacts, signature, watermark", ("B3",),
            ("illustrious", "ilxl", "waini"), cfg=6.0,
        ),
        Profile(
            "sdxl", "SDXL base 1.0", "", "blurry, low quality, jpeg artifacts, text, watermark", ("B2",),
            ("sd_xl_base", "stable-diffusion-xl-base", "sdxl_base", "sdxlbase"), sampler="dpmpp_2m", cfg=7.0,
            sha256=("31e35c80fc4829d14f90153f4c74cd59c90b779f6afe05a74cd6120b893f7e5b",), dialect="prose",
            subjects=("a portrait of a smiling woman", "a mountain landscape under a blue sky"),
        ),
        Profile(
            "starter", "Kiln's starter", "score_9", "", ("K1",), ("starter",), sampler="euler", cfg=4.0,
            resolution=128, subjects=STARTER_SUBJECTS,
        ),
        Profile(
            "starter-v", "Kiln's starter, v-prediction", "score_9", "", ("K1",), ("starter-v",), prediction="v",
            ztsnr=True, sampler="euler", cfg=4.0, rescale=0.7, resolution=128, subjects=STARTER_SUBJECTS,
        ),
    )
}  # fmt: skip


def recognise(
    base: str, metadata: Mapping[str, str], sha256: str = "", predicts: str = "", told: str = ""
) -> Profile | None:
    """The profile of a base; None rather than a guess.

    In this order: the hash of its whole file (where that is known), what the user told of its content, the title in its
    header, its name. `predicts` is what the file says of itself ("epsilon", "v", ""): it separates NoobAI's two
    releases, and a profile that it contradicts is not taken; nor one that a name with "v-pred" in it contradicts.
    """
    for profile in PROFILES.values():
        if sha256 and sha256.lower() in profile.sha256:
            return profile
    if told in PROFILES:
        return PROFILES[told]
    if base in PROFILES:
        return PROFILES[base]
    title = metadata.get("modelspec.title", "")
    name = re.split(r"[/\\]", base.rstrip("/\\"))[-1]
    for text in filter(None, (title, name)):
        for profile in PROFILES.values():
            if any(re.search(mark, text.lower()) for mark in profile.marks):
                return _agreeing(profile, predicts or ("v" if re.search(r"v[-_ ]?pred", text.lower()) else ""))
    return None


def _agreeing(profile: Profile, predicts: str) -> Profile | None:
    if not predicts or predicts == profile.prediction:
        return profile
    twins = {"noob-eps": "noob-v", "noob-v": "noob-eps", "starter": "starter-v", "starter-v": "starter"}
    return PROFILES[twins[profile.name]] if profile.name in twins else None
