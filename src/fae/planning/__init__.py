"""Before a run: memory, coverage, step time and a verdict, from a sample."""
