"""The WebSockets of the wires."""
