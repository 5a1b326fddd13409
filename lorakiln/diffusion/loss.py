"""How far a prediction is from its target, per sample, and how much each sample's error counts.

Shapes: B batch, C channels, H and W latent height and width. Everything is fp32 and stays on its device.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from lorakiln.diffusion.schedule import Prediction

LossKind = Literal["l2", "l1", "huber", "smooth_l1"]
HuberSchedule = Literal["constant", "exponential", "snr"]


def error(prediction_BCHW: Tensor, target_BCHW: Tensor, kind: LossKind, threshold_B: Tensor | None = None) -> Tensor:
    """error_BCHW of each element: e^2, |e|, or a pseudo-Huber curve that turns from one to the other around c.

    With c = `threshold_B` (of `huber_threshold`): huber = 2c (sqrt(e^2 + c^2) - c), near e^2 for small e and 2c |e| for
    large; smooth_l1 = the same over c, near e^2 / c and 2 |e|. They are sd-scripts' two (Khrapov et al. 2024).
    """
    distance = prediction_BCHW.float() - target_BCHW.float()
    if kind == "l2":
        return distance.square()
    if kind == "l1":
        return distance.abs()
    assert kind in ("huber", "smooth_l1"), kind
    assert threshold_B is not None, "a Huber loss needs its threshold"
    c_B111 = threshold_B.to(distance.device)[:, None, None, None]
    # sqrt(e^2 + c^2) - c, without its cancellation at small e
    curve = 2 * distance.square() / ((distance.square() + c_B111.square()).sqrt() + c_B111)
    return c_B111 * curve if kind == "huber" else curve


def huber_threshold(timestep_B: Tensor, snr_B: Tensor, schedule: HuberSchedule, c: float, num_timesteps: int) -> Tensor:
    """c_B, where the Huber losses turn from square to linear, for each sample's timestep (Khrapov et al. 2024).

    constant: c. exponential: exp(t ln(c) / T), from 1 at the clean end to c at the noisy one. snr: c + (1 - c) /
    (1 + sigma)^2 with sigma = 1 / sqrt(SNR), which is c at zero SNR.
    """
    if schedule == "constant":
        return torch.full_like(snr_B, c)
    if schedule == "exponential":
        return torch.exp(timestep_B.to(snr_B.device) * (math.log(c) / num_timesteps))
    assert schedule == "snr", schedule
    sigma_B = snr_B.rsqrt()  # infinite at zero SNR, where 1 / (1 + sigma)^2 is 0
    return (1 - c) / (1 + sigma_B).square() + c


def mean(error_BCHW: Tensor, mask_B1HW: Tensor | None = None) -> Tensor:
    """loss_B: each sample's mean error, over the mask's own pixels where there is one.

    The mask weighs each latent pixel 0..1. Dividing by its sum, not by the picture's size, keeps the gradient of a
    small mask as large as that of a big one. A sample whose mask is empty has loss and gradient 0.
    """
    if mask_B1HW is None:
        return error_BCHW.mean((1, 2, 3))
    channels = error_BCHW.shape[1]
    covered_B = mask_B1HW.sum((1, 2, 3))
    total_B = (error_BCHW * mask_B1HW).sum((1, 2, 3))
    return total_B / (channels * covered_B).where(covered_B > 0, 1)


def min_snr_weight(snr_B: Tensor, gamma: float, prediction: Prediction) -> Tensor:
    """Min-SNR-gamma weight (Hang et al. 2023): min(SNR, gamma) / SNR for epsilon, / (SNR + 1) for v.

    At SNR 0 (a zero-terminal-SNR end) nothing is divided by zero: the epsilon weight is its limit 1, the v weight is 0,
    since the paper weighs the error of the clean picture by min(SNR, gamma), and that is 0 there.
    """
    capped_B = snr_B.clamp(max=gamma)
    if prediction == "v":
        return capped_B / (snr_B + 1)
    return torch.where(snr_B > gamma, gamma / snr_B.clamp(min=gamma), 1.0)


def debiased_weight(snr_B: Tensor, prediction: Prediction) -> Tensor:
    """Debiased-estimation weight: 1 / sqrt(SNR) for epsilon (Yu et al. 2023), 1 / (SNR + 1) for v (sd-scripts).

    The paper has no v. SNR is kept in 1e-3..1e3, so that the weight of epsilon stays below 32.
    """
    snr_B = snr_B.clamp(max=1000)
    if prediction == "v":
        return 1 / (snr_B + 1)
    return snr_B.clamp(min=1e-3).rsqrt()
