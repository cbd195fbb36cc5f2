"""What runs use and what that costs, summed in the store."""
