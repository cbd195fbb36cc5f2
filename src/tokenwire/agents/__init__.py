"""Agents: code of the user, or an object of a framework, as a run that survives."""
