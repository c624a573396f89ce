"""Export of a catalog to formats of astronomers' tools: HATS, VOParquet, VOTable, FITS, CSV."""
