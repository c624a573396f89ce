"""What a person looks at: the report, the explorer, notebooks, and single images."""
