"""Sample prompts that show what was learned: captions of the set's own, and for a style things it never shows.

All are dressed in the base's dialect.
"""

from statistics import median

from lorakiln.advise.pictures import Pictures, trigger_place
from lorakiln.advise.profiles import Profile
from lorakiln.tag import captions

COUNT = 4
LONGEST = 12  # tags taken over from a caption


def sample_prompts(pictures: Pictures, profile: Profile | None, trigger: str = "", purpose: str = "") -> list[str]:
    """Up to four prompts, with the base's quality words and the trigger in front.

    They are spread over those of the set's captions that say most; for a style half of them name subjects that the base
    knows and the set need not show, since a style is what carries over to them. Without captions: the trigger alone.
    """
    texts = pictures.written()
    found = trigger_place(texts)
    word = trigger or (found[0] if found else "")
    beyond = profile.subjects if profile and purpose == "style" else ()
    own = COUNT - len(beyond)
    full = _fuller_half(texts)
    picked = [full[round(place * (len(full) - 1) / max(1, own - 1))] for place in range(own)] if full else [""]
    prompts = []
    for text in dict.fromkeys((*picked, *beyond)):
        prompt = _prompt(text, word, profile)
        if prompt and prompt not in prompts:
            prompts.append(prompt)
    return prompts or ["a picture"]


def _fuller_half(texts: list[str]) -> list[str]:
    """The captions with at least the median's number of tags, in their order."""
    counts = [len(captions.parse(text)) for text in texts]
    return [text for text, count in zip(texts, counts, strict=True) if count >= median(counts)]


def _prompt(text: str, word: str, profile: Profile | None) -> str:
    quality = list(captions.parse(profile.quality)) if profile else []
    first = text.splitlines()[0] if text else ""
    tags = [tag for tag in captions.parse(first) if tag not in quality][:LONGEST]
    if word and not any(word in tag for tag in tags):
        tags.insert(0, word)
    return ", ".join([*quality, *tags]).replace(" --", " ")
