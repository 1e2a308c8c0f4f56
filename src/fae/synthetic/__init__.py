"""Click logs with a planted click model, of any size."""
