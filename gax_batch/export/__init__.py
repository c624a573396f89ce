"""A catalog where astronomers look: HATS, VOParquet, VOTable, FITS, CSV."""
