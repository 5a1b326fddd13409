"""Settings of what is asked of the model and how its error is weighed."""

from typing import Literal

from lorakiln.base.settings.field import Section, setting


class Loss(Section):
    kind: Literal["l2", "l1", "huber", "smooth_l1"] = setting(
        "l2", "How an error counts; huber and smooth_l1 forgive outliers.", effect="loss"
    )
    huber_schedule: Literal["constant", "exponential", "snr"] = setting(
        "snr", "How the threshold of huber and smooth_l1 moves with the timestep.", effect="loss"
    )
    huber_c: float = setting(0.1, "Threshold of huber and smooth_l1.", effect="loss", low=1e-6, high=100.0)
    min_snr_gamma: float = setting(
        0.0,
        "Caps the weight of nearly clean steps (min-SNR; 5 is usual); 0: every step weighs the same.",
        effect="loss",
        low=0.0,
        high=100.0,
    )
    debiased: bool = setting(False, "Weigh by 1 / sqrt(SNR) instead (debiased estimation).", effect="loss")
    noise_offset: float = setting(
        0.0,
        "Per-channel noise offset, for darker darks and brighter brights; 0.03-0.05 is usual.",
        effect="loss",
        low=0.0,
        high=0.2,
    )
    multires_levels: int = setting(
        0,
        "Levels of multi-resolution noise, for variety in large shapes; 6-10 is usual.",
        effect="loss",
        low=0,
        high=16,
    )
    multires_discount: float = setting(
        0.3, "How much weaker each coarser level of multires noise is.", effect="loss", low=0.0, high=1.0
    )
    input_perturbation: float = setting(
        0.0, "Extra noise on the input alone (IP noise gamma); 0.1 is usual.", effect="loss", low=0.0, high=1.0
    )
    min_timestep: int = setting(0, "Lowest timestep trained.", effect="loss", low=0, high=999)
    max_timestep: int = setting(1000, "Timesteps below this are trained.", effect="loss", low=1, high=1000)
    timesteps: Literal["uniform", "low_discrepancy"] = setting(
        "uniform", "low_discrepancy spreads timesteps evenly over steps, for a calmer loss.", effect="loss"
    )
