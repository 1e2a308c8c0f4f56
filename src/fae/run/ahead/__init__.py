"""Before a stage starts: compile the loops that it will call."""
