"""The list of a person's conversations: read once, and followed as it changes."""
