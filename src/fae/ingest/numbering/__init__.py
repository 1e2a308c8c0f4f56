"""Final ids of a log: counted, numbered by popularity, written in the place of provisional ones."""
