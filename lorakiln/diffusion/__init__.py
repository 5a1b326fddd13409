"""The mathematics of denoising: schedules, noise, targets, losses. Tensors in, tensors out; no setting is read."""
