"""The page that a person reads after a run: one HTML file, made of the catalog alone, with no model."""
