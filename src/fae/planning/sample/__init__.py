"""What a plan reads: the whole log or a sample of it, in a temporary folder."""
