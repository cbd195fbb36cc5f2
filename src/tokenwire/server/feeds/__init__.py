"""Streams of conversations to clients: what happens in one, and in a person's list of them."""
