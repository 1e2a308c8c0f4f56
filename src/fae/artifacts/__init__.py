"""What stages hand to each other: one class to open each artifact, one page of its format."""
