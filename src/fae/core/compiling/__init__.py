"""What it takes to compile loops before they are called: types of arguments, and one process at a loop."""
