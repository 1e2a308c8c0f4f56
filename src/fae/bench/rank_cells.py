"""The speed of FAE's contenders on several GPUs: weak scaling beside one GPU, in turns, on ranks of this host.

`fae bench paper --gpus N` starts itself as 2, 4 and so on ranks (`RankCells`), each of which comes to `RankTurns`. The
samples of W GPUs and those of one, which rank 0 takes while the others wait, are taken in turns by the same processes.
Rank 0 decides what is measured next, and saves each sample in the record.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from fae.bench.cells import Cells
from fae.bench.config import BenchConfig
from fae.bench.contenders import OurContender, PaperContender, take_faster_precision
from fae.bench.preparation import Preparation
from fae.bench.rank_table import rank_contenders, rank_key
from fae.bench.ratios import LABELS, PACK_OF
from fae.bench.shared_rows import RowMemory
from fae.bench.speed_cells import free_memory
from fae.bench.timing import Sample, sample_beside_host
from fae.core.errors import DeviceError, FaeError, RankError
from fae.core.progress import Task, say, task
from fae.core.threads import shared_cores
from fae.core.units import format_count
from fae.distributed.group import Group
from fae.distributed.launcher import launch
from fae.training.dense_threads import torch_threads

SECONDS_LEFT = "FAE_BENCH_SECONDS_LEFT"
"""Tells ranks how many seconds are left of ``--until``; 0 is no limit."""


def rank_cell_keys(config: BenchConfig, device: str, world: int) -> list[str]:
    """Names of the cells that ranks of `world` GPUs measure."""
    names = rank_contenders(config.contenders, device)
    return [
        rank_key(size, world, name, alone=alone) for size in config.sizes() for name in names for alone in (True, False)
    ]


def lacking_rank_cells(config: BenchConfig, cells: Cells, device: str, world: int) -> list[str]:
    """Those of them that lack samples and could have them."""
    missing = cells.missing(rank_cell_keys(config, device, world), samples=config.rounds)
    return [key for key in missing if not cells.get(key, {}).get("why")]


def require_devices(config: BenchConfig, device: str) -> None:
    """Refuse more GPUs than this host has, before anything is measured.

    Raises
    ------
    DeviceError
        If there are fewer.
    """
    count = torch.cuda.device_count() if device == "cuda" else None
    if count is not None and config.gpus > count:
        raise DeviceError(
            f"--gpus {config.gpus} is more than the {count} GPU{'s' * (count != 1)} of this host; give at most "
            f"{count}, or --device cpu for processes of the CPU"
        )


class RankCells:
    """Has ranks measure what is missing of the cells ``<batch size>/gpus/<W>/<contender>``, for each W in turn.

    Parameters
    ----------
    words
        The words of this command behind ``fae``, which its ranks get too.
    """

    def __init__(
        self, config: BenchConfig, prepared: Preparation, cells: Cells, *, device: str, words: Sequence[str]
    ) -> None:
        self.config, self.prepared, self.cells, self.device, self.words = config, prepared, cells, device, words

    def prepare(self, world: int) -> None:
        """Make the packed batches that `world` ranks cut: W times as large, and those of one."""
        for size in self.config.sizes():
            for name in rank_contenders(self.config.contenders, self.device):
                for of_ranks in (size, size * world):
                    self.prepared.packed(PACK_OF.get(name, "own"), of_ranks)

    def measure(self) -> None:
        """Start the ranks of each number of GPUs, and wait for their ends.

        Raises
        ------
        SystemExit
            With their status, where they have failed and said why.
        """
        for world in self.config.rank_counts():
            for key in rank_cell_keys(self.config, self.device, world):
                self.cells.sample_cell(key).pop("why", None)
            if not lacking_rank_cells(self.config, self.cells, self.device, world) or self.cells.late():
                continue
            self.prepare(world)
            self.cells.save()
            say(f"bench: {world} {'GPUs' if self.device == 'cuda' else 'processes of this CPU'}, beside one")
            # As the command that was typed, they find no module in the current folder, unless that is where it looks.
            path = [] if sys.path[0] in ("", os.getcwd()) else ["-P"]
            environ = {**os.environ, SECONDS_LEFT: str(self.cells.seconds_left())}
            try:
                status = launch([sys.executable, *path, "-m", "fae", *self.words], world, environ=environ)
            finally:
                self.cells.reload()
            if status:
                raise SystemExit(status)


class RankTurns:
    """One rank of those that measure.

    Parameters
    ----------
    cells
        The record, on rank 0; None on others.
    group
        The ranks.
    """

    def __init__(self, config: BenchConfig, prepared: Preparation, cells: Cells | None, group: Group) -> None:
        self.config, self.prepared, self.cells, self.group = config, prepared, cells, group
        self.device = "cpu" if group.device == "cpu" else "cuda"
        self.memory = RowMemory(config, prepared, copies=group.world + 1)

    def measure(self) -> None:
        """Measure what is missing, one batch size after the other."""
        for size in self.config.sizes():
            self._measure(size)
            free_memory(self.device)  # out here, as `SpeedCells` does

    def _measure(self, size: int) -> None:
        names = self._of_first(self._missing, size, what="what is measured next")
        contenders: dict[tuple[str, bool], OurContender | None] = {}
        with task(f"bench: batches of {size:,} on {self.group.world} ranks", None, "samples") as progress:
            for name in names:
                for alone in (True, False):
                    with self._named(name), self._placed(name, alone=alone):
                        is_here = self.group.is_first or not alone
                        contenders[name, alone] = self._make(size, name, alone=alone) if is_here else None
            for number in range(self.config.rounds):
                for (name, alone), contender in contenders.items():
                    key = rank_key(size, self.group.world, name, alone=alone)
                    if self._of_first(self._lacks, key, number, what=f"sample {number + 1} of {key}"):
                        self._take(key, name, contender, progress, alone=alone)

    def _of_first(self, decide: Any, *arguments: Any, what: str) -> Any:
        """What rank 0 decides."""
        return self.group.broadcast_json(decide(*arguments) if self.group.is_first else None, what)

    def _missing(self, size: int) -> list[str]:
        """Contenders that lack samples; one that cannot run here leaves the reason in its cells."""
        cells, world = self.cells, self.group.world
        assert cells is not None
        lacking = set(lacking_rank_cells(self.config, cells, self.device, world))
        found = []
        for name in rank_contenders(self.config.contenders, self.device):
            keys = [rank_key(size, world, name, alone=alone) for alone in (True, False)]
            if cells.late() or not lacking.intersection(keys):
                continue
            if why := self._why_not(name):
                say(f"bench: {LABELS[name]} on {world} GPUs is left out: {why}")
                for key in keys:
                    cells.note(key, {"why": why})
                cells.save()
            else:
                found.append(name)
        return found

    def _why_not(self, name: str) -> str:
        if name != "device" or self.device == "cpu":
            return ""
        needed, (free, _) = 2 * self.prepared.table_bytes, torch.cuda.mem_get_info()
        return "all rows do not fit the first GPU twice, alone and among others" if needed > 0.9 * free else ""

    def _lacks(self, key: str, number: int) -> bool:
        assert self.cells is not None
        return len(self.cells.sample_cell(key)["samples"]) <= number and not self.cells.late()

    @contextlib.contextmanager
    def _placed(self, name: str, *, alone: bool) -> Iterator[None]:
        """Let rank 0 do the block alone, on all cores, or all ranks, each on its share."""
        world = self.group.world
        if alone:
            with self.group.first_works(f"{LABELS[name]} on one GPU"):
                yield
        else:
            with shared_cores(world), torch_threads(max(1, torch.get_num_threads() // world)):
                yield

    @contextlib.contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Say in one line which contender fails where: others wait for this rank, so all end."""
        try:
            yield
        except FaeError:
            raise
        except Exception as error:
            words = " ".join(str(error).split())[:300]
            raise RankError(
                f"{LABELS[name]} failed on rank {self.group.rank} of {self.group.world}: {type(error).__name__}: "
                f"{words}; the same command continues behind the samples that are there, --contenders leaves it out"
            ) from error

    def _make(self, size: int, name: str, *, alone: bool) -> OurContender:
        config, prepared = self.config, self.prepared
        hot_set, packed = prepared.opened(PACK_OF.get(name, "own"), size if alone else size * self.group.world)
        torch.manual_seed(config.seed)  # rows are the same on all ranks
        options: dict[str, Any] = {
            "model": prepared.model, "optimizer": prepared.optimizer, "learning_rate": prepared.learning_rate,
            "device": self.group.device, "precision": config.precision if self.device == "cuda" else "fp32",
            "filled": self.memory.is_shared, "compiled": config.compiled(), "group": None if alone else self.group,
        }  # fmt: skip
        with self.memory.lent():
            contender: OurContender = (
                PaperContender(packed, hot_set, **options) if name == "paper"
                else OurContender(packed, hot_set, "tiered" if name in PACK_OF else name, **options)
            )  # fmt: skip
        seconds = min(1.0, config.sample_seconds)
        if self.device == "cpu" and config.precision == "bf16":
            take_faster_precision(contender, seconds)
        contender.warm_up(seconds)
        if self.cells is not None:
            facts = {
                "precision": contender.precision, "device_bytes": contender.device_bytes,
                "global_batch": packed.batch_size, "input_share": packed.summary["input_share"],
            }  # fmt: skip
            self.cells.sample_cell(key := rank_key(size, self.group.world, name, alone=alone))
            self.cells.note(key, facts)
        return contender

    def _take(self, key: str, name: str, contender: OurContender | None, progress: Task, *, alone: bool) -> None:
        def sample_together() -> Sample:
            with self._placed(name, alone=alone):
                if contender is None:
                    return {}
                return contender.sample(self.config.sample_seconds, self.config.min_batches)

        with self._named(name):
            sample = sample_together() if self.cells is None else sample_beside_host(sample_together)
        if self.cells is None:
            return
        self.cells.add_sample(key, {**sample, "session": len(self.cells.record["sessions"]) - 1})
        where = "1" if alone else str(self.group.world)
        progress.advance(1, note=f"{where} x {name} {format_count(sample['samples_per_second'])} inputs/s")


def seconds_left() -> float:
    """What `SECONDS_LEFT` says."""
    return float(os.environ.get(SECONDS_LEFT) or 0)
