"""Runs that a worker outside of the server writes."""
