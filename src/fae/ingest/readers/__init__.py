"""One file a format: chunks of typed columns out of a raw file."""
