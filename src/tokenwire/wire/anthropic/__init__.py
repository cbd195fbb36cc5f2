"""Anthropic Messages, outwards."""
