"""Settings of what is computed once and kept: latents, and text states while the text encoders are frozen."""

from typing import Literal

from lorakiln.base.settings.field import Section, setting


class Cache(Section):
    latents: Literal["disk", "memory", "off"] = setting("disk", "Where encoded pictures are kept.", effect="memory")
    text: Literal["memory", "off"] = setting(
        "memory", "Where encoded captions are kept; used only for text encoders that stay frozen.", effect="memory"
    )
    text_megabytes: int = setting(
        1024, "Most memory that encoded captions may take; the oldest go first.", effect="memory", low=1
    )
    folder: str = setting("", "Folder of the latent cache; empty: '.cache' in the runs folder.", effect="memory")
