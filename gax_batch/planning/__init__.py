"""What a run has to do: the difference between a listing and a catalog, in units."""
