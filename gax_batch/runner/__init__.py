"""One run from its settings to its commit, and what is known of it before."""
