"""Nouns everyone may use. Never imports torch, nor any other room."""
