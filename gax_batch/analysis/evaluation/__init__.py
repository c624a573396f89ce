"""What a bundle or a catalog is worth: errors, coverage, anomalies, measured against labels."""
