"""Access: which role a request needs, and who vouches for those who send it."""
