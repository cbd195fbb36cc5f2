"""Appends to logs in Redis: grouped, encoded, sent, and their answers judged."""
