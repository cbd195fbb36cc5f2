"""What is done for runs and conversations after their end."""
