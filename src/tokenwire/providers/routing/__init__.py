"""Where a name leads, and which fields of a caller go there."""
