"""What a server process does for itself."""
