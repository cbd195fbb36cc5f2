"""``tokenwire doctor URL``: what stands between here and a server, and what it does to streams."""
