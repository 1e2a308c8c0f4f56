"""One training on several ranks: what they must have in common, and what they decide together."""
