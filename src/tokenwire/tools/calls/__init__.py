"""A tool call from its first delta to its outcome."""
