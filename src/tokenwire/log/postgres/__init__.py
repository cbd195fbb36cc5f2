"""The log in PostgreSQL, 14 and newer."""
