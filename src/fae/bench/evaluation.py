"""``fae bench paper``: one workload over all placements, cell by cell, into one JSON record (docs/guide/bench.md)."""

from __future__ import annotations

import dataclasses
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fae.bench.accuracy_cells import ORDERS, AccuracyCells, accuracy_keys
from fae.bench.cells import Cells
from fae.bench.config import BenchConfig
from fae.bench.preparation import Preparation
from fae.bench.rank_cells import RankCells, RankTurns, lacking_rank_cells, require_devices, seconds_left
from fae.bench.rank_table import lines_of_ranks
from fae.bench.ratios import LABELS, PACK_OF, tables
from fae.bench.shared_rows import RowMemory
from fae.bench.speed_cells import SpeedCells, speed_key
from fae.core.errors import RankError
from fae.core.files import locked_folder
from fae.core.progress import say
from fae.core.units import format_bytes, format_count
from fae.distributed.places import RankPlace, place_of_process
from fae.distributed.rank_process import RankProcess
from fae.run.context import choose_device
from fae.run.record import library_versions, machine, source_commit

RECORD = "paper.json"
FORMAT_VERSION = 1

_FREE_SETTINGS = (
    "batch_sizes", "contenders", "rounds", "accuracy", "until_seconds", "sample_seconds", "min_batches", "prepare_only",
    "gpus",
)  # fmt: skip


def run_bench(
    config: BenchConfig, out: str | Path, *, device: str | None = None, words: Sequence[str] = ()
) -> dict[str, Any]:
    """Measure what is missing in ``out/paper.json`` and return the record.

    Parameters
    ----------
    out
        Folder of the log, the packed batches and the record.
    device
        ``"cpu"`` or ``"cuda"``; None takes a GPU where there is one.
    words
        The words of the command behind ``fae``: where it measures several GPUs it starts ranks with the same.

    Raises
    ------
    SystemExit
        At the end of such a rank, and with the status of ranks that have failed.
    FaeError
        If options contradict each other, the record is of other settings, or the device is not there.
    """
    place = place_of_process()
    if place.world > 1:
        raise SystemExit(_be_rank(config, Path(out), device, place))
    where = choose_device(device)
    require_devices(config, where)
    with locked_folder(Path(out)):
        return _Evaluation(config, Path(out), where, words).run()


def _be_rank(config: BenchConfig, out: Path, device: str | None, place: RankPlace) -> int:
    """As one of the ranks that this command has started: measure with the others."""
    if place.launcher is None:
        raise RankError("fae bench paper starts its ranks itself: give --gpus N, and leave torchrun out")
    with RankProcess(place) as process, process.join(choose_device(device)) as group:
        config = dataclasses.replace(config, until_seconds=seconds_left())
        where = "cpu" if group.device == "cpu" else "cuda"
        cells = open_cells(config, out, where, is_rank=True) if group.is_first else None
        RankTurns(config, Preparation(config, out), cells, group).measure()
        gc.collect()  # graphs end before the connections that they use
    return 0


def open_cells(config: BenchConfig, out: Path, device: str, *, is_rank: bool = False) -> Cells:
    """The cells of ``out/paper.json``, with a new session of this command on this machine, unless it is a rank's.

    Raises
    ------
    ArtifactError
        If the record is of other settings, or no record.
    """
    settings = {**dataclasses.asdict(config), "device": device}
    for name in _FREE_SETTINGS:
        del settings[name]
    # A record from before there was a setting was mostly made with its default. Nothing was compiled then.
    older = {option.name: getattr(BenchConfig, option.name, None) for option in dataclasses.fields(BenchConfig)}
    older["no_compile"] = device == "cuda" and config.recipe_compiles()
    cells = Cells(
        out / RECORD, settings, what="record of `fae bench paper`", older_settings=older,
        header={"kind": "paper_table", "format_version": FORMAT_VERSION}, until_seconds=config.until_seconds,
    )  # fmt: skip
    if is_rank:
        return cells
    cells.record.setdefault("sessions", []).append(
        {
            "command": "fae " + " ".join(sys.argv[1:]), "machine": machine(), "versions": library_versions(),
            "commit": source_commit(), "load_average": list(os.getloadavg()), "threads": torch.get_num_threads(),
            "spin": os.environ.get("GOMP_SPINCOUNT"),
        }
    )  # fmt: skip
    return cells


class _Evaluation:
    """One command: its record, and the cells that it measures."""

    def __init__(self, config: BenchConfig, out: Path, device: str, words: Sequence[str]) -> None:
        self.config, self.out, self.device = config, out, device
        self.cells = open_cells(config, out, device)
        self.prepared = Preparation(config, out)
        self.log_facts, workload = self.prepared.facts(), self.prepared.workload
        self.record = self.cells.record
        self.record["log"] = self.log_facts
        self.record["workload"] = {
            "name": config.workload, "title": workload.title, "recipe": workload.recipe,
            "model": dict(workload.model), "train": dict(workload.train), "hot": dict(workload.hot),
        }  # fmt: skip
        self.cells.before_saving = self._refresh
        self.ranks = RankCells(config, self.prepared, self.cells, device=device, words=words)

    def _refresh(self, record: dict[str, Any]) -> None:
        known = [int(key.split("/")[0]) for key in self.cells]  # of the commands before this one, too
        sizes = list(dict.fromkeys([*self.config.sizes(), *known]))
        record["tables"] = tables(self.cells, sizes, self.log_facts)
        record["complete"] = self._is_complete()

    def _is_complete(self) -> bool:
        speed = [speed_key(size, name) for size in self.config.sizes() for name in self.config.contenders]
        lacking = [
            key for key in self.cells.missing(speed, samples=self.config.rounds)
            if not self.cells.get(key, {}).get("final")
        ]  # fmt: skip
        for world in self.config.rank_counts():
            lacking += lacking_rank_cells(self.config, self.cells, self.device, world)
        return not lacking and not self.cells.missing(accuracy_keys(self.config))

    def run(self) -> dict[str, Any]:
        """Measure, and say what came out."""
        facts, config = self.log_facts, self.config
        say(f"bench: {self.prepared.workload.title}")
        say(
            f"bench: {format_count(facts['train_inputs'])} training inputs, {format_count(facts['num_rows'])} rows "
            f"({format_bytes(facts['table_bytes'])} with state), of which the log touches "
            f"{format_count(facts['touched_rows'])}; on {self.device}"
        )
        if config.prepare_only:
            return self._prepare()
        self._measure_alone()
        self.ranks.measure()
        self.cells.save()
        if not self.record["complete"]:
            say("bench: not complete; the same command continues from here")
        for text in summary_lines(self.record):
            say(text)
        for table in self.record["tables"]:
            if table["host"].get("warning"):
                say(f"bench: batches of {table['batch_size']:,}: {table['host']['warning']}")
        say(f"bench: the record is {self.out / RECORD}; `fae report {self.out}` draws it")
        return self.record

    def _measure_alone(self) -> None:
        """Measure what this process does by itself; the memory that it takes is free afterwards."""
        memory = RowMemory(self.config, self.prepared)
        speed = SpeedCells(self.config, self.prepared, self.cells, memory, device=self.device)
        for size in self.config.sizes():
            speed.measure(size)
        AccuracyCells(self.config, self.prepared, self.cells, memory, device=self.device).measure()

    def _prepare(self) -> dict[str, Any]:
        """Make every pack that the cells of this command read."""
        kinds = {"own", *(PACK_OF.get(name, "own") for name in self.config.contenders)}
        needed = {(size, kind) for size in self.config.sizes() for kind in kinds}
        needed |= {(int(key.split("/")[0]), ORDERS[key.split("/")[2]]) for key in accuracy_keys(self.config)}
        for size, kind in sorted(needed):
            self.prepared.packed(kind, size)
        for world in self.config.rank_counts():
            self.ranks.prepare(world)
        self.cells.save()
        say(f"bench: everything is prepared in {self.out}; the same command without --prepare measures")
        return self.record


def summary_lines(record: dict[str, Any]) -> list[str]:
    """The tables of a record for a terminal."""
    lines = []
    for table in record["tables"]:
        lines.append(f"batches of {table['batch_size']:,}")
        for row in table["rows"]:
            low, high = row["spread"]
            over = [f"{row[key]:.1f}x {key}" for key in ("over plain cpu", "over plain hybrid") if key in row]
            auc = f", AUC {row['auc']:.4f}" if row["auc"] is not None else ""
            lines.append(
                f"  {row['label']:26} {format_count(row['samples_per_second'])} inputs/s "
                f"({format_count(low)} to {format_count(high)}), epoch {row['epoch_seconds']:.1f} s; "
                + ", ".join(over) + auc
            )  # fmt: skip
        lines += [f"  {each['label']:26} left out: {each['why']}" for each in table["left_out"]]
        lines += lines_of_ranks(table.get("gpus", ()), LABELS, device=record["settings"]["device"])
    return lines
