"""Files that `fae export` copies beside a model; they import torch, safetensors, pyarrow, each other."""
