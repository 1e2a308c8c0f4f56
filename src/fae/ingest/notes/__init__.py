"""What ingest notices of a log: shares of unknown and missing values, and notes for people."""
