"""What a catalog is for: population fractions, selections for volunteers, labels, and evaluation."""
