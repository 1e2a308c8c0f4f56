"""One paper a file; models know features by name and nothing of tiers."""
