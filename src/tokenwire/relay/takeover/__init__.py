"""What happens to a run whose worker was lost."""
