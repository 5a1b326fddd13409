"""Settings of one folder of pictures: how often, how cropped, and how its captions are read."""

from typing import Literal

from lorakiln.base.settings.field import Section, setting


class Dataset(Section):
    folder: str = setting(
        ..., "Folder of pictures, with subfolders; kohya's '10_name' folders repeat 10 times.", effect="loss"
    )
    repeats: int = setting(1, "Times each picture is seen an epoch.", effect="order", low=1)
    folder_names: bool = setting(
        True, "Read the number and the caption in names like '10_trigger'; false: a name means nothing.", effect="order"
    )
    resolution: int = setting(
        0, "Side of a square picture in pixels; 0: the base's own.", effect="loss", low=0, high=4096
    )
    extensions: list[str] = setting(
        lambda: [".txt", ".caption"],
        "Caption files looked for beside a picture, the first found is read.",
        effect="loss",
    )
    missing: Literal["error", "empty"] = setting("error", "What a picture without a caption means.", effect="loss")
    prefix: str = setting(
        "", "Put before every caption, e.g. the trigger word; never shuffled or dropped.", effect="loss"
    )
    suffix: str = setting("", "Put after every caption.", effect="loss")
    shuffle: bool = setting(False, "Shuffle the tags anew at each visit.", effect="loss")
    keep_tokens: int = setting(0, "So many first tags stay in front and are never dropped.", effect="loss", low=0)
    keep_separator: str = setting("", "Instead of a count: tags before this mark (e.g. '|||') stay.", effect="loss")
    tag_dropout: float = setting(0.0, "Chance that a tag is left out.", effect="loss", low=0.0, high=1.0)
    caption_dropout: float = setting(
        0.0, "Chance that the whole caption is empty, so that guidance keeps working.", effect="loss", low=0.0, high=1.0
    )
    wildcards: bool = setting(False, "'{red|blue} hat' draws one of the words at each visit.", effect="loss")
    flip: bool = setting(False, "Mirror every other visit. Not for characters with a side.", effect="loss")
    random_crop: bool = setting(
        False, "Crop anew at each visit instead of at the centre; needs cache.latents = 'off'.", effect="loss"
    )
    bucket: bool = setting(True, "Sort pictures by aspect instead of cropping all to a square.", effect="loss")
    bucket_step: int = setting(64, "Bucket sides are multiples of this.", effect="loss", low=8, high=1024)
    bucket_min: int = setting(0, "Shortest bucket side; 0: half the resolution.", effect="loss", low=0)
    bucket_max: int = setting(0, "Longest bucket side; 0: twice the resolution.", effect="loss", low=0)
    no_upscale: bool = setting(False, "Never enlarge a small picture; it gets a smaller bucket.", effect="loss")
    background: str = setting("#ffffff", "Colour behind transparent pictures.", effect="loss")
    masks: str = setting(
        "",
        "Where the loss counts: 'alpha' for the pictures' own transparency, or a folder that mirrors this one.",
        effect="loss",
    )
    weight: float = setting(
        1.0, "Weight of these pictures' loss; below 1 for regularisation pictures.", effect="loss", low=0.0, high=100.0
    )
    heldout: float = setting(
        0.0,
        "Pictures kept out of training for 'kiln judge': a share below 1 or a count, copies together; 0: none, and "
        "learning cannot be told from memorising.",
        effect="order",
        low=0.0,
    )
