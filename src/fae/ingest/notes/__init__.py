"""What ingest notices of a log beside its numbers: shares of unknown and missing values, and lines for people."""
