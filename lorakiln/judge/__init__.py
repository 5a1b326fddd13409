"""Is it good: measures of a trained LoRA."""
