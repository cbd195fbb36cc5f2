"""What runs used, as routes say it."""
