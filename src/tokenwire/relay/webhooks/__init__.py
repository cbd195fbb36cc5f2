"""Webhooks: signed calls that tell other programs what became of runs."""
