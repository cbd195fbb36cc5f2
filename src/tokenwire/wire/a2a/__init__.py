"""A2A 1.0 (Agent2Agent): tasks, their artifacts and their states."""
