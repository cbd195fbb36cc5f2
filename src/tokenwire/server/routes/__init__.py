"""One file of routes per wire or subject."""
