"""What the store keeps of runs and conversations beside the logs."""
