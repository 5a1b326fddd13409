"""The rules of `kiln check`, by what they are about."""

from lorakiln.advise.rules import captions, machine, pictures, training

__all__ = ["captions", "machine", "pictures", "training"]
