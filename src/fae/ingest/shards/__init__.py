"""Read a raw log in shards, on all cores, to what one pass in log order would give."""
