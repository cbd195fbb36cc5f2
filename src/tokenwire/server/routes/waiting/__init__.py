"""``/v1/waiting`` and approval links: what waits for a person, and where a person decides."""
