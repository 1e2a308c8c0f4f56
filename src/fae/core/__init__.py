"""Errors, units, configuration, seeds, files, threads: what every package uses; knows no log."""
