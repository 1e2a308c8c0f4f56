"""Draw the splits of ``split = "random"``: a hash of each input's number, or of its value in one column, and the seed.

Draws depend on the seed and on the log alone: neither on blocks, threads nor kills.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.core.seeds import derive_seed
from fae.ingest.config import LogConfig
from fae.ingest.values import as_text, scalars

TRAIN, VALIDATION, TEST = 0, 1, 2
Draws = npt.NDArray[np.uint64]


def number_draws(count: int, seed: int) -> Draws:
    """uint64 ``[count]``: a draw for each of the numbers from 0 on, no two alike (SplitMix64 of a counter)."""
    start = np.uint64(derive_seed(seed, "split"))
    with np.errstate(over="ignore"):
        x = (np.arange(1, count + 1, dtype=np.uint64) + start) * np.uint64(0x9E3779B97F4A7C15)
        x ^= x >> np.uint64(30)
        x *= np.uint64(0xBF58476D1CE4E5B9)
        x ^= x >> np.uint64(27)
        x *= np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return x


def value_draws(array: Any, config: LogConfig, locate: Callable[[int], str]) -> Draws:
    """uint64 ``[n]``: a draw for each input of an Arrow array ``[n]``, the same for the same value.

    A value is its text as in a categorical column; a missing one is a value like any other.
    """
    array = scalars(array, "the column of [log] split_by", config.split_by or "", locate)
    text = as_text(array, config.split_by or "", locate, config.missing).dictionary_encode()
    key = derive_seed(config.split_seed, "split").to_bytes(8, "little")
    draws = [
        int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8, key=key).digest(), "little")
        for value in text.dictionary.to_pylist()
    ]
    result: Draws = np.array(draws, np.uint64)[text.indices.to_numpy()]
    return result


def parts_of_files(sizes: Sequence[int]) -> npt.NDArray[np.uint8]:
    """uint8 ``[n]``: `TRAIN`, `VALIDATION` or `TEST` of each input by its file, from the inputs of the three kinds."""
    return np.repeat(np.array([TRAIN, VALIDATION, TEST], np.uint8), sizes)


def drawn_by_number(config: LogConfig, sizes: Sequence[int]) -> npt.NDArray[np.uint8]:
    """`parts_of_files`, with validation and test drawn among the inputs of train files as `config` says.

    The shares are exact, rounded to the nearest input.
    """
    parts, (num_train, _, num_test) = parts_of_files(sizes), sizes
    test = int((num_train + num_test) * config.effective_test_fraction() + 0.5)
    validation = int((num_train - test) * config.effective_validation_fraction() + 0.5)
    draws = number_draws(num_train, config.split_seed)
    _take_smallest(draws, parts[:num_train], test + validation, VALIDATION)
    _take_smallest(draws, parts[:num_train], test, TEST)
    return parts


def _take_smallest(draws: Draws, parts: npt.NDArray[np.uint8], count: int, split: int) -> None:
    if count > 0:
        parts[draws <= np.partition(draws, count - 1)[count - 1]] = split


def drawn_by_value(config: LogConfig, draws: Draws, sizes: Sequence[int]) -> npt.NDArray[np.uint8]:
    """As `drawn_by_number`, from the draws of all inputs: a value is in test or validation with the chance that the
    fractions say, so the shares are near these where no value has many inputs.
    """
    parts, num_train = parts_of_files(sizes), sizes[0]
    test, validation = config.effective_test_fraction(), config.effective_validation_fraction()
    shares = draws[:num_train] / 2.0**64
    parts[:num_train][shares < test + (1 - test) * validation] = VALIDATION
    parts[:num_train][shares < test] = TEST
    return parts
