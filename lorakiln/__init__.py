"""Kiln: from a folder of pictures to a LoRA that came out right."""

__version__ = "0.1.0"
