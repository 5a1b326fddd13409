"""The rules of `kiln check`, by what they are about."""

from lorakiln.advise.rules import captions, idle, machine, pictures, training

__all__ = ["captions", "idle", "machine", "pictures", "training"]
