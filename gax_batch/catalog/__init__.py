"""The catalog: its columns, its parts, its snapshots. Knows no model and no engine."""
