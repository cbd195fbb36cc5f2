"""Durable Streams: streams of one's own, kept in the server's log."""
