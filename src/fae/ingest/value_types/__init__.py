"""What the values of each Arrow type are as text, and which types have the same texts."""
