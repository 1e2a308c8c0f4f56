"""The stages of a run before they run: time, memory and disk of each, for any number of cores."""
