"""Simulated surveys: galaxies of known structure, pictured as SDSS would have seen them."""
