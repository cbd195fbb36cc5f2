"""Subscriptions to Durable Streams."""
