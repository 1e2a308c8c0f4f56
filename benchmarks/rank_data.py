"""The cases of `ranks`, and their logs and packed batches, which are made once for all ranks."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fae.artifacts.columnar_log import ColumnarLog
from fae.pack import shuffle

from common import capped_rows, hot_set, made_once, make_log, open_log, packed_log, write_log
from model_parallel import Sharding

SHARE = 0.05
"""Share of the rows that is hot, in all cases of our own."""
_CHECK_ROWS, _CHECK_INPUTS, _CHECK_BATCHES = 2000, 512, 4


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is measured together.

    Attributes
    ----------
    mixed
        False packs hot and cold inputs apart, and trains their batches interleaved.
    strong
        Whether all ranks share a batch of the size that one has.
    """

    placement: str
    optimizer: str = "sgd"
    dim: int = 16
    mixed: bool = True
    strong: bool = False


CASES = {
    "device": Case(placement="device"),
    "adagrad": Case(placement="device", optimizer="rowwise_adagrad"),
    "dim64": Case(placement="device", dim=64),
    "tiered": Case(placement="tiered"),
    "interleaved": Case(placement="tiered", mixed=False),
    "strong": Case(placement="device", strong=True),
}
QUICK = ("device", "strong")


class Data:
    """Logs and packed batches of all contenders in one folder; what is missing is made.

    Parameters
    ----------
    check
        Whether it is the small log, by which both systems are compared.
    """

    def __init__(self, folder: Path, options: argparse.Namespace, *, check: bool = False) -> None:
        self.folder, self._is_check = folder, check
        self.sharding = Sharding.deal(
            capped_rows(min(_CHECK_ROWS, options.cap) if check else options.cap), options.ranks
        )
        self.batch_size = min(options.batch_size, _CHECK_INPUTS) if check else options.batch_size
        self._inputs = options.inputs or 1_000_000 * options.ranks
        if check:
            self._inputs = _CHECK_BATCHES * options.ranks * self.batch_size
        self._made: dict[Any, tuple[Any, Any]] = {}

    @cached_property
    def log(self) -> ColumnarLog:
        """All tables."""
        rows, path = self.sharding.rows, self.folder / "check"
        if not self._is_check:
            return open_log("zipf", self.folder, self._inputs, rows)
        made_of = {"inputs": self._inputs, "rows": list(rows)}
        return ColumnarLog(made_once(path, made_of, lambda: make_log(path, self._inputs, rows=rows, seed=2)))

    def ours(self, case: Case, batch_size: int) -> tuple[Any, Any]:
        """Hot set and packed batches."""
        kind: dict[str, Any] = {
            "dim": case.dim, "batch_size": batch_size, "optimizer": case.optimizer, "mixed": case.mixed,
        }  # fmt: skip
        key = tuple(kind.values())
        if key not in self._made:
            hot = hot_set(self.log, SHARE, **kind)
            self._made[key] = (hot, packed_log(self.log, hot, self.folder))
        return self._made[key]

    def owned(self, case: Case, batch_size: int, owner: int) -> tuple[Any, Any]:
        """The same of the tables of one owner alone, all rows hot."""
        log, tables = self.log, self.sharding.tables(owner)
        path = self.folder / f"{log.path.name}_owner{owner}of{len(self.sharding.counts)}"
        parameters = {"log": log.manifest.fingerprint, "tables": [tables.start, tables.stop]}

        def make() -> None:
            ids = np.ascontiguousarray(log.ids[:, tables])
            dense, rows = np.zeros((len(ids), 0), np.float32), self.sharding.rows[tables]
            write_log(path, rows, ids, dense, np.asarray(log.labels), parameters, tables.start)

        own = ColumnarLog(made_once(path, parameters, make))
        hot = hot_set(own, 1.0, dim=case.dim, batch_size=batch_size, mixed=True, optimizer=case.optimizer)
        return hot, packed_log(own, hot, self.folder)

    def prepare(self, cases: list[Case], world: int) -> None:
        """Make everything."""
        # One bucket for each log: the order of inputs depends on their number, and logs of fewer columns have fewer.
        shuffle.BUCKET_BYTES = 2**50
        for case in cases:
            together = self.batch_size * (1 if case.strong else world)
            for size in {self.batch_size, together}:
                self.ours(case, size)
            for owner in range(world if case.placement == "device" else 0):
                self.owned(case, together, owner)
