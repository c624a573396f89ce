"""Views of a catalog for a person: the report, the explorer, notebooks, and single images."""
