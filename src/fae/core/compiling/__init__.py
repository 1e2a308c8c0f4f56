"""What it takes to compile loops before they are called: types of arguments, one process at a loop."""
