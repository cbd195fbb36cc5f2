"""``tokenwire budgets``: see and set the budgets of a server from a terminal."""
