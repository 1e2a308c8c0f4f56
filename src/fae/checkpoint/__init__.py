"""Saving, loading and continuing a training."""
