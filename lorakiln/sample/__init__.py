"""Pictures out of a base model: samplers, prompts, and the grids that lay results side by side."""
