"""LoRA files: written and read kohya-style, described, merged, resized, extracted and converted."""
