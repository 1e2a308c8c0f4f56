"""How single arrays and files of artifacts are stored: planes of orders, rounded numbers, the files of a split."""
