"""A first look at a raw log, and a first recipe for it."""
