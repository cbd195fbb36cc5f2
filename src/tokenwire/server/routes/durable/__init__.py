"""Durable Streams under `/ds`: runs to read, and streams of one's own."""
