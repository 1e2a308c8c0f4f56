"""Which raw files a recipe means: names, patterns, what lies beside the data, gone files."""
