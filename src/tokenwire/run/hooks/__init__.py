"""Functions of the application that a run calls: before it exists, and around each of its tools."""
