"""Embeddings of one of several ranks: the sums of all, and rows that ranks have together."""
