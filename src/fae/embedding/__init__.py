"""Tables and their optimizer state: where rows live, how they move between tiers, how a batch reads and updates them."""
