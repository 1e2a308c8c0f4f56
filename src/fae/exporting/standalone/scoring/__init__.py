"""From raw inputs to scores, by an exported folder alone."""
