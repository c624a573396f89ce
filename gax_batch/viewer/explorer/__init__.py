"""`gax explore`: a catalog in a local browser, to filter and view galaxies and to export a selection."""
