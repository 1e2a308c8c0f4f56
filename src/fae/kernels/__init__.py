"""Arithmetic on tensors: look up, pool, sum gradients, update; knows no file and no thread."""
