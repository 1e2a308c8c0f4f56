"""Files that `fae export` copies beside a model; they import no FAE."""
