"""Files that `fae export` copies beside an exported model; they import torch, safetensors, pyarrow and each other."""
