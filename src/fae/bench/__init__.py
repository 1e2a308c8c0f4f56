"""The paper's evaluation, measured on this machine."""
