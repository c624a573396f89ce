"""Decoding of images to cutouts: decoders, FITS, RGB, world coordinates, resampling, and limits."""
