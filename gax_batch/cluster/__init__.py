"""Execution on Ray: steps of a unit, pipeline, tracker of units, metrics and progress."""
