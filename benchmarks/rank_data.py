"""The cases of `ranks`, and their logs and packed batches, which are made once for all ranks."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fae.artifacts.columnar_log import ColumnarLog
from fae.bench.config import LARGE_BATCH
from fae.bench.workloads import WORKLOADS
from fae.core.optimizers import row_bytes
from fae.core.units import parse_bytes
from fae.models.config import model_config
from fae.pack import shuffle
from fae.synthetic.shapes import TABLE_SHAPES

from common import capped_rows, hot_set, made_once, make_log, open_log, packed_log, write_log, zipf_hot_rows
from contenders import contender_options
from model_parallel import Sharding

REPRODUCIBLE = ", reproducible"
"""What names of contenders end with that train in 8 slices."""
SHARES = {"zipf": 0.05, "criteo": 0.01}
"""Share of the rows that is hot over Criteo Kaggle's tables, by log: ``criteo`` touches less than 5 % of them. A
workload's share follows from its budget."""
WORKLOAD_INPUTS, _FEWEST_BATCHES = 300_000, 4
"""Inputs of a workload's log, or as many as these batches of all ranks take."""
_CHECK_ROWS, _CHECK_INPUTS, _CHECK_BATCHES = 2000, 512, 4


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is measured together.

    Attributes
    ----------
    placement, one
        Placements of the contenders ``ranks`` and ``one``; where the second is empty, it is the first.
    tiered
        Whether ``tiered ranks`` are measured beside them.
    workload
        One of the paper's (`fae.bench.workloads`), with its tables, model, rates, batch size and budget; empty for DLRM
        over Criteo Kaggle's tables.
    log
        ``zipf``, or over Criteo Kaggle's tables ``criteo``, whose columns agree.
    mixed
        False packs hot and cold inputs apart, and trains their batches interleaved.
    strong
        Whether all ranks share a batch of the size that one has.
    reproducible
        Whether both are also measured as ``[train] reproducible`` trains.
    """

    placement: str
    one: str = ""
    tiered: bool = False
    workload: str = ""
    log: str = "zipf"
    optimizer: str = "sgd"
    dim: int = 16
    mixed: bool = True
    strong: bool = False
    reproducible: bool = False

    @property
    def placements(self) -> Mapping[str, str]:
        """Placements of our contenders, by their names."""
        found = {"one": self.one or self.placement, "ranks": self.placement}
        if self.reproducible:
            found |= {name + REPRODUCIBLE: placement for name, placement in found.items()}
        return found | ({"tiered ranks": "tiered"} if self.tiered else {})

    @property
    def model_parallel(self) -> bool:
        """Whether model parallelism is measured beside them: every row is on some GPU, in tables as it deals them."""
        dealt = self.log == "zipf" and not self.workload
        return dealt and self.placement in ("device", "spread") and not self.reproducible

    def options(self, device: str) -> dict[str, Any]:
        """Model, optimizer, rate, device and precision, as `fae.bench.contenders` takes them."""
        plain = contender_options(self.dim, self.optimizer, device)
        if not self.workload:
            return plain
        own = WORKLOADS[self.workload]
        return plain | {"model": model_config(own.model), "learning_rate": float(own.train["learning_rate"])}

    @property
    def table_rows(self) -> list[int]:
        """Rows of each table of its workload."""
        return [column.num_embeddings for column in TABLE_SHAPES[WORKLOADS[self.workload].shape].columns]

    @property
    def share(self) -> float:
        """Share of the rows that is hot; a workload's budget is that of its hot rows, staging comes beside it."""
        if not self.workload:
            return SHARES[self.log]
        budget = parse_bytes(WORKLOADS[self.workload].hot["budget"])
        return min(1.0, budget / (sum(self.table_rows) * row_bytes(self.optimizer, self.dim)))


def _of_workload(workload: str, **fields: Any) -> Case:
    own = WORKLOADS[workload]
    return Case(
        workload=workload, dim=own.model["embedding_dim"], optimizer=own.train["optimizer"], **fields
    )  # fmt: skip


CASES = {
    "device": Case(placement="device"),
    "adagrad": Case(placement="device", optimizer="rowwise_adagrad"),
    "dim64": Case(placement="device", dim=64),
    "tiered": Case(placement="tiered"),
    "interleaved": Case(placement="tiered", mixed=False),
    "strong": Case(placement="device", strong=True),
    "criteo": Case(placement="device", log="criteo"),
    "criteo_tiered": Case(placement="tiered", log="criteo"),
    "spread": Case(placement="spread", one="device"),
    "reproducible": Case(placement="device", reproducible=True),
    "rmc2": _of_workload("rmc2", placement="tiered"),
    "rmc3": _of_workload("rmc3", placement="tiered"),
    "rmc3_spread": _of_workload("rmc3", placement="spread", one="device", tiered=True),
}
QUICK = ("device", "strong", "rmc2", "reproducible", "criteo_tiered")


def is_alone(contender: str) -> bool:
    """Whether it is that of rank 0 alone."""
    return contender.removesuffix(REPRODUCIBLE) == "one"


class Data:
    """Logs and packed batches of all contenders in one folder; what is missing is made.

    Parameters
    ----------
    check
        Whether it is the small log, by which both systems are compared.
    """

    def __init__(self, folder: Path, options: argparse.Namespace, *, check: bool = False) -> None:
        self.folder, self._is_check, self._ranks = folder, check, options.ranks
        self._cap, self._batch_size, self._inputs = options.cap, options.batch_size, options.inputs
        self.sharding = Sharding.deal(
            capped_rows(min(_CHECK_ROWS, options.cap) if check else options.cap), options.ranks
        )
        self._logs: dict[tuple[str, str], ColumnarLog] = {}
        self._made: dict[Any, tuple[Any, Any]] = {}

    def batch_size(self, case: Case, contender: str = "one") -> int:
        """Inputs of a step of a contender, those of all ranks together."""
        own = WORKLOADS[case.workload].train["batch_size"] if case.workload else LARGE_BATCH
        size = int(self._batch_size or own)
        size = min(size, _CHECK_INPUTS) if self._is_check else size
        return size * (1 if case.strong or is_alone(contender) else self._ranks)

    def log(self, case: Case) -> ColumnarLog:
        """All tables of a case."""
        key = (case.workload, case.log)
        if key not in self._logs:
            self._logs[key] = self._workload_log(case) if case.workload else self._kaggle_log(case)
        return self._logs[key]

    def _workload_log(self, case: Case) -> ColumnarLog:
        rows = [min(size, self._cap) for size in case.table_rows]
        inputs = self._inputs or max(WORKLOAD_INPUTS, _FEWEST_BATCHES * self.batch_size(case, "ranks"))
        return self._zipf_log(f"zipf_{case.workload}", inputs, rows, seed=1)

    def _kaggle_log(self, case: Case) -> ColumnarLog:
        rows = self.sharding.rows
        if self._is_check:
            return self._zipf_log("check", _CHECK_BATCHES * self.batch_size(case, "ranks"), list(rows), seed=2)
        inputs = self._inputs or 1_000_000 * self._ranks
        return open_log(case.log, self.folder, inputs, rows if case.log == "zipf" else capped_rows(self._cap))

    def _zipf_log(self, name: str, inputs: int, rows: list[int], seed: int) -> ColumnarLog:
        path, made_of = self.folder / name, {"inputs": inputs, "rows": rows}
        return ColumnarLog(made_once(path, made_of, lambda: make_log(path, inputs, rows=rows, seed=seed)))

    def ours(self, case: Case, batch_size: int) -> tuple[Any, Any]:
        """Hot set and packed batches."""
        kind: dict[str, Any] = {
            "dim": case.dim, "batch_size": batch_size, "optimizer": case.optimizer, "mixed": case.mixed,
        }  # fmt: skip
        key = (case.workload, case.log, *kind.values())
        if key not in self._made:
            log = self.log(case)
            if case.log == "zipf":
                # Tables are large and logs are short: by their accesses every row that occurs would be hot. Ids are in
                # the order of their popularity.
                sizes = [feature.num_embeddings for feature in log.features]
                kind |= {"order": "vocabulary", "num_hot": zipf_hot_rows(sizes, case.share)}
            hot = hot_set(log, case.share, **kind)
            self._made[key] = (hot, packed_log(log, hot, self.folder))
        return self._made[key]

    def owned(self, case: Case, batch_size: int, owner: int) -> tuple[Any, Any]:
        """The same of the tables of one owner alone, all rows hot."""
        log, tables = self.log(case), self.sharding.tables(owner)
        path = self.folder / f"{log.path.name}_owner{owner}of{len(self.sharding.counts)}"
        parameters = {"log": log.manifest.fingerprint, "tables": [tables.start, tables.stop]}

        def make() -> None:
            ids = np.ascontiguousarray(log.ids[:, tables])
            dense, rows = np.zeros((len(ids), 0), np.float32), self.sharding.rows[tables]
            write_log(path, rows, ids, dense, np.asarray(log.labels), parameters, tables.start)

        own = ColumnarLog(made_once(path, parameters, make))
        hot = hot_set(own, 1.0, dim=case.dim, batch_size=batch_size, mixed=True, optimizer=case.optimizer)
        return hot, packed_log(own, hot, self.folder)

    def prepare(self, cases: list[Case]) -> None:
        """Make everything."""
        # One bucket for each log: the order of inputs depends on their number, and logs of fewer columns have fewer.
        shuffle.BUCKET_BYTES = 2**50
        for case in cases:
            together = self.batch_size(case, "ranks")
            for size in {self.batch_size(case), together}:
                self.ours(case, size)
            for owner in range(self._ranks if case.model_parallel else 0):
                self.owned(case, together, owner)
