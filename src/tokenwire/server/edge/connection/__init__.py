"""The connections of a server below ASGI: their clocks, bounds and counts."""
