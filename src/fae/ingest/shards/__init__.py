"""Read a raw log in pieces, on all cores, to the rows and vocabularies that one pass in log order would give."""
