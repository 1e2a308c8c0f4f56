"""Dense features: clipped and transformed, with constants of the training split where wanted."""
