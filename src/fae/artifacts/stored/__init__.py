"""How arrays of artifacts are stored: planes of orders, rounded numbers, the files of a split."""
