"""``tokenwire waiting``: see on a terminal what waits for a person, and decide about it."""
