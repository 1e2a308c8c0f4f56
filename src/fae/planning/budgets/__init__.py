"""What each of some budgets buys, and what it takes on the GPU, in host memory and on the disk."""
