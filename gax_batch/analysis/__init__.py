"""Analysis of a catalog: population fractions, selections for volunteers, labels, and evaluation."""
