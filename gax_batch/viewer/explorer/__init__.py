"""`gax explore`: a catalog in a local browser, to filter, to look at, and to take a selection from."""
