"""Raw files for a finished run: found, read and encoded with its vocabulary."""
