"""Tables and their optimizer state: where rows live, how they move, how a batch reads and updates them."""
