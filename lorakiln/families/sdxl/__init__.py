"""SDXL 1.0 and the models made from it: loading, text, latents, conditioning and prediction."""
