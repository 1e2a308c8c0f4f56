"""How the process of a command behaves: signals, streams that are gone, faults of the machine."""
