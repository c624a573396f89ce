"""Simulated surveys: images, as SDSS would have taken them, of galaxies with a known structure."""
