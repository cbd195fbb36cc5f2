"""Bring a language model's answer to people while it is being written, and never lose a word."""

__version__ = "0.1.0"
