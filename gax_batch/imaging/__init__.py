"""From bytes to a cutout: decoders, FITS, RGB, world coordinates, resampling, and limits."""
