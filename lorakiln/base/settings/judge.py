"""Settings of judging while training goes on; `kiln judge RUN` needs none of them."""

from typing import Literal

from lorakiln.base.settings.field import Section, setting


class Judge(Section):
    epochs: int = setting(
        0, "Measure the gain on held-out pictures every so many epochs; 0: not by epochs.", effect="log", low=0
    )
    steps: int = setting(
        0, "Measure the gain on held-out pictures every so many steps; 0: not by steps.", effect="log", low=0
    )
    stop: Literal["", "baked"] = setting(
        "",
        "'baked' ends the run once the held-out gain has peaked beyond noise, and keeps the best checkpoint.",
        effect="tensors",
    )
