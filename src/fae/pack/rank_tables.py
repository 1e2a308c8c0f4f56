"""Where compiled loops find the storage rank of a vocabulary id: all tables in one call, wherever their ranks lie.

The ranks of each table are a file of its own, mapped into memory. One loop over the inputs of a block needs those of
all tables, so it is given addresses: a copy of all ranks behind each other would take four bytes a row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fae.artifacts.row_layout import RowLayout
from fae.core.compiled import Int64, njit
from fae.pack.memory_access import load_rank

Int32 = npt.NDArray[np.int32]


class RankTables:
    """The storage ranks of a layout's tables, held in memory while this lives.

    Attributes
    ----------
    slots
        int64: the slots whose tables have ranks; those of other tables are the ids.
    addresses
        int64: of each of them, the address of its table's ranks, int32.
    """

    def __init__(self, layout: RowLayout) -> None:
        self._held = [None if ranks is None else np.ascontiguousarray(ranks, np.int32) for ranks in layout.ranks]
        of_tables = [0 if ranks is None or not ranks.size else ranks.ctypes.data for ranks in self._held]
        addresses: Int64 = np.array(of_tables, np.int64)[layout.table_of_slot]
        self.slots: Int64 = np.flatnonzero(addresses).astype(np.int64)
        self.addresses: Int64 = addresses[self.slots]


@njit(nogil=True)
def ids_to_ranks(rows: Int32, slots: Int64, addresses: Int64) -> None:
    """Replace ids by storage ranks, in place.

    Parameters
    ----------
    rows
        int32 ``[n, S]``: ids, -1 in unused slots; few enough inputs for a core's first-level cache.
    slots, addresses
        Of `RankTables`.
    """
    for place in range(slots.size):
        slot, address = slots[place], addresses[place]
        for i in range(rows.shape[0]):
            if rows[i, slot] >= 0:
                rows[i, slot] = load_rank(address, np.int64(rows[i, slot]))
