"""The work of a run: the difference between a listing and a catalog, in units."""
