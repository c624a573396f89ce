"""Execution on Ray: the steps of a unit, the pipeline, and how it stands."""
