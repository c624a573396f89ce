"""Evaluation of a bundle or a catalog against labels: errors, coverage, anomalies."""
