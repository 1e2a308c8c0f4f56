"""Random streams: one independent stream per use, named in words, all derived from the user's one seed.

A stream depends on the seed and its name alone, never on the order of calls, threads or placement.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(seed: int, *names: str | int) -> int:
    """63-bit seed of the stream called `names`, from the user's `seed`.

    >>> derive_seed(1, "pack") == derive_seed(1, "pack"), derive_seed(1, "pack") == derive_seed(2, "pack")
    (True, False)
    """
    text = "\x1f".join([str(int(seed)), *map(str, names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """NumPy generator (Philox, counter-based) of the stream called `names`."""
    return np.random.Generator(np.random.Philox(key=derive_seed(seed, *names)))
