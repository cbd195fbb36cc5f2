"""``/v1/threads/{thread}``: its turns, its branch, and what waits in it."""
