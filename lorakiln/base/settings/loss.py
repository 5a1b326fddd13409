"""Settings of what is asked of the model and how its error is weighed."""

from lorakiln.base.settings.field import Section, setting


class Loss(Section):
    min_snr_gamma: float = setting(
        0.0, "Caps the weight of nearly clean steps (min-SNR; 5 is usual); 0: every step weighs the same.",
        effect="loss", low=0.0, high=100.0,
    )  # fmt: skip
    noise_offset: float = setting(
        0.0, "Per-channel noise offset, for darker darks and brighter brights; 0.03-0.05 is usual.",
        effect="loss", low=0.0, high=0.2,
    )  # fmt: skip
