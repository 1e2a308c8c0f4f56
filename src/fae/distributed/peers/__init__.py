"""Memory that ranks read of one another: in place, or as a copy that a collective makes."""
