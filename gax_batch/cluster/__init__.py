"""Execution on Ray: the steps of a unit, the pipeline, the tracker of units, metrics and progress."""
