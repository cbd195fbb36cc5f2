"""The wires that the simulator speaks."""
