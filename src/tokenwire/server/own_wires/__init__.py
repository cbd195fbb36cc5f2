"""Wires of an application's own, or of installed packages: found, checked, and served."""
