"""How requests start runs: alone, or as turns of a conversation."""
