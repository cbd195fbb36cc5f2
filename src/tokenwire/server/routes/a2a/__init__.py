"""A2A's routes: the agent card, JSON-RPC, and REST."""
