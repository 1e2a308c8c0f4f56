"""Ground floor: errors, units, configuration, files, seeds, threads, progress. Imports nothing of `fae` above it."""
