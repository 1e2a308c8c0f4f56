"""Ground floor: errors, units, configuration, artifacts, seeds, threads, progress. Imports nothing of `fae`."""
