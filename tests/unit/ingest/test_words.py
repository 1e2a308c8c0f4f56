"""Eight bytes as one number, compiled and as plain Python."""

from __future__ import annotations

import numpy as np

from fae.core.compiled import njit
from fae.ingest.words import load_word


@njit(nogil=True)
def loaded(data, places, found):
    for index in range(places.size):
        found[index] = load_word(data, places[index])


def test_it_is_the_number_wherever_it_begins() -> None:
    data = np.random.default_rng(3).integers(0, 256, 60).astype(np.uint8)
    places, found = np.arange(53), np.empty(53, np.int64)
    loaded(data, places, found)
    expected = [int.from_bytes(data[place : place + 8].tobytes(), "little", signed=True) for place in places]
    assert found.tolist() == expected == [int(load_word(data, place)) for place in places]
