"""JSON in, one HTML page out."""
