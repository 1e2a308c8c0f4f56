"""Placements: where rows are kept, and how a batch finds them."""
