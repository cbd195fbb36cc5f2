"""The feed of a conversation: what happens in it, as a short log that every device can follow."""
