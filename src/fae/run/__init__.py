"""A run: recipe, folder, stages, record; the one way from a log to packed batches."""
