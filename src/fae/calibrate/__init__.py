"""The third stage: the hot rows for a budget."""
