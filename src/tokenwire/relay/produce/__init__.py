"""A run's events into its log."""
