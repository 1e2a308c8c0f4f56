"""The exchange of some batches on each of several ranks: ``python exchange_program.py FOLDER``, started as a rank."""

from __future__ import annotations

import itertools
import random
import sys
import time
from pathlib import Path

import numpy as np

from fae.distributed.exchange import RowExchange
from fae.distributed.exchange_lists import ExchangeList
from fae.distributed.peers.host_sums import HostSums
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
        shared = HostSums(group, SLICES, most, DIM)
        for number in range(BATCHES):
            rows, sums = drawn_batch(number)
            own = sums[place.rank * each : (place.rank + 1) * each]
            time.sleep(delays.random() * 0.01)
            found[f"all{number}"] = exchange.totals(rows, own, f"batch {number}")
            exchange.fill_with_nan()
            mine = rows.bits_of_rank(place.rank, place.world) != 0
            found[f"mine{number}"] = exchange.totals(rows, own, f"batch {number} again", needed=mine)
            assert group.meeting is not None
            group.meeting.await_all()
            shared.fill_with_nan()
            if each == 1:
                room = shared.room(len(own[0]))
                room[:] = own[0]
                own = [room]
            shared.write(rows, own)
            group.meeting.meet(f"batch {number} in the memory of the host")
            bounds = [0, *sorted(delays.sample(range(len(rows) + 1), 2 if len(rows) > 1 else 1)), len(rows)]
            parts = [shared.totals(rows, first, last) for first, last in itertools.pairwise(bounds)]
            found[f"shared{number}"] = np.concatenate(parts)
            group.meeting.say(f"batch {number} is read")
        np.savez(folder / f"{place.rank}.npz", **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
