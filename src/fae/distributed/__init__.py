"""Ranks: the group of processes that train together, how they start and end, and what they exchange."""
