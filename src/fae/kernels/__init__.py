"""Row kernels: pure functions on tensors. `reference` (plain torch) defines what is right, `cpu` is numba."""
