"""The exchange of some batches on each of several ranks: ``python exchange_program.py FOLDER``, started as a rank."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import numpy as np

from fae.distributed.exchange import RowExchange
from fae.distributed.exchange_lists import ExchangeList
from fae.distributed.places import place_of_process
from fae.distributed.rank_process import RankProcess

BATCHES, SLICES, DIM = 24, 8, 6
_KINDS = ("mixed", "all", "one", "empty")


def drawn_batch(number: int, kind: str | None = None) -> tuple[ExchangeList, list[np.ndarray]]:
    """A batch and the sums of all of its slices; rows of all slices, of one each, or slices without any."""
    kind, draws = kind or _KINDS[number % len(_KINDS)], np.random.default_rng(number)
    count = int(draws.integers(1, 90))
    bits = draws.integers(1, 256, count)
    if kind == "all":
        bits[:] = 255
    elif kind == "one":
        bits = 1 << draws.integers(0, SLICES, count)
    elif kind == "empty":
        bits = (bits & 0b00100101) | 0b00000100  # half of the ranks have nothing
    rows = ExchangeList(np.sort(draws.permutation(10_000)[:count]).astype(np.int32), bits.astype(np.uint8), SLICES)
    sums = []
    for place in range(SLICES):
        shape = (len(rows.places_of_slice(place)), DIM)
        values = draws.standard_normal(shape) * 10.0 ** draws.integers(-6, 7, shape)
        sums.append(np.where(draws.random(shape) < 0.1, -0.0, values).astype(np.float32))
    return rows, sums


def main(folder: Path) -> None:
    """As one rank: exchange all batches."""
    place = place_of_process()
    delays, each = random.Random(place.rank), SLICES // place.world
    with RankProcess(place) as process, process.join() as group:
        most = max(drawn_batch(number)[0].most_rows_of_a_rank(place.world) for number in range(BATCHES))
        exchange, found = RowExchange(group, SLICES, most, DIM), {}
        for number in range(BATCHES):
            rows, sums = drawn_batch(number)
            own = sums[place.rank * each : (place.rank + 1) * each]
            time.sleep(delays.random() * 0.01)
            found[f"all{number}"] = exchange.totals(rows, own, f"batch {number}")
            exchange.fill_with_nan()
            mine = rows.bits_of_rank(place.rank, place.world) != 0
            found[f"mine{number}"] = exchange.totals(rows, own, f"batch {number} again", needed=mine)
        np.savez(folder / f"{place.rank}.npz", **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
