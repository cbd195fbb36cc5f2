"""The start of a run: its description, checked, perhaps changed by the application, and stored."""
