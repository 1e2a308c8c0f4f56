"""The speed of every contender at one batch size: make them, warm them up, take samples of them in turns."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch

from fae.artifacts.hot_set import HotSet
from fae.artifacts.packed import PackedDataset
from fae.bench.cells import Cells
from fae.bench.config import CONTENDERS, BenchConfig
from fae.bench.contenders import Contender, OurContender, PaperContender, PlainContender, take_faster_precision
from fae.bench.plain_contender import PlainPyTorch
from fae.bench.preparation import Preparation
from fae.bench.ratios import LABELS, PACK_OF
from fae.bench.shared_rows import RowMemory
from fae.bench.timing import sample_beside_host
from fae.core.errors import FaeError
from fae.core.progress import Task, say, task
from fae.core.units import format_bytes, format_count

Packs = Mapping[str, tuple[HotSet, PackedDataset]]
Made = TypeVar("Made")

_PLAIN_BATCHES = 256
_PLAIN_BATCH_BYTES = 2**30
"""Most batches that plain PyTorch has in memory before the clock starts, and most bytes of them."""


class SpeedCells:
    """Measures what is missing of the cells ``<batch size>/speed/<contender>``.

    A contender that fails, or cannot run on this machine, leaves the reason in its cell.

    Parameters
    ----------
    cells
        The record. Samples name its last session.
    """

    def __init__(
        self, config: BenchConfig, prepared: Preparation, cells: Cells, memory: RowMemory, *, device: str
    ) -> None:
        self.config, self.prepared, self.cells, self.memory, self.device = config, prepared, cells, memory, device

    def measure(self, size: int) -> None:
        """Measure the contenders at batches of `size`."""
        missing = []
        for name in CONTENDERS:
            if name not in self.config.contenders:
                continue
            key = speed_key(size, name)
            cell = self.cells.sample_cell(key)
            cell.pop("why", None)
            cell["final"] = False
            if why := self._why_not(name):
                cell.update(why=why, final=True)
            elif self.cells.missing([key], samples=self.config.rounds):
                missing.append(name)
        if not missing or self.cells.late():
            self.cells.save()
            return
        kinds = ["own", *(PACK_OF[name] for name in missing if name in PACK_OF)]
        packs = {kind: self.prepared.packed(kind, size) for kind in kinds}
        self.cells.note(f"{size}/facts", self.prepared.pack_facts(size, packs))
        self._take_turns(size, missing, packs)
        free_memory(self.device)  # out here: inside, a variable would still hold the last contender and its tables

    def _take_turns(self, size: int, missing: Sequence[str], packs: Packs) -> None:
        contenders: dict[str, Contender] = {}
        total = sum(self.config.rounds - len(self.cells[speed_key(size, name)]["samples"]) for name in missing)
        with task(f"bench: batches of {size:,}", len(missing) + total, "cells") as progress:
            for name in missing:
                if self.cells.late():
                    break
                made = self._attempt(size, name, partial(self._make, name, size, packs))
                if made is not None:
                    contenders[name] = made
                progress.advance(1, note=name)
            for number in range(self.config.rounds):
                self._take_round(size, number, contenders, progress)

    def _take_round(self, size: int, number: int, contenders: dict[str, Contender], progress: Task) -> None:
        """One sample of every contender that lacks its sample `number`; one that fails is dropped."""
        for name in list(contenders):
            key = speed_key(size, name)
            if len(self.cells[key]["samples"]) > number or self.cells.late():
                continue
            take = partial(contenders[name].sample, self.config.sample_seconds, self.config.min_batches)
            sample = self._attempt(size, name, partial(sample_beside_host, take))
            if sample is None:
                del contenders[name]
                continue
            self.cells.add_sample(key, {**sample, "session": len(self.cells.record["sessions"]) - 1})
            progress.advance(1, note=f"{name} {format_count(sample['samples_per_second'])} inputs/s")

    def _why_not(self, name: str) -> str:
        """Why a contender is not measured on this machine; empty where it can be."""
        if self.device != "cuda":
            return {
                "plain hybrid": "needs a GPU: without one it is plain cpu",
                "hybrid": "needs a GPU: without one it is cpu",
                "device": "needs a GPU",
            }.get(name, "")
        needed, (free, _) = self.prepared.table_bytes, torch.cuda.mem_get_info()
        if name == "device" and needed > 0.9 * free:
            return f"all rows take {format_bytes(needed)}, the GPU has {format_bytes(free)} free"
        return ""

    def _attempt(self, size: int, name: str, work: Callable[[], Made]) -> Made | None:
        """What `work` returns, or None with the reason in the cell: a contender's failure is a result too."""
        try:
            return work()
        except FaeError:
            raise
        except Exception as error:
            words = " ".join(str(error).split())[:300]
            why = f"failed: {type(error).__name__}: {words}"
            say(f"bench: {LABELS[name]}: {why}")
            self.cells.note(speed_key(size, name), {"why": why})
            self.cells.save()
            return None

    def _make(self, name: str, size: int, packs: Packs) -> Contender:
        on_gpu = self.device == "cuda" and name not in ("plain cpu", "cpu")
        contender = self._make_plain(name, size) if name.startswith("plain") else self._make_ours(name, packs, on_gpu)
        seconds = min(1.0, self.config.sample_seconds)
        if not on_gpu and self.config.precision == "bf16":
            take_faster_precision(contender, seconds)
        contender.warm_up(seconds)
        facts: dict[str, Any] = {"precision": contender.precision, "device_bytes": contender.device_bytes}
        if isinstance(contender, PaperContender):
            facts["swaps"] = contender.swaps
        self.cells.note(speed_key(size, name), facts)
        return contender

    def _make_plain(self, name: str, size: int) -> Contender:
        where = self.device if name == "plain hybrid" else "cpu"
        each = size * (2 * self.prepared.input_bytes + 16)
        return PlainContender(
            PlainPyTorch(
                self.prepared.log, **self._training_options(), batch_size=size, device=where,
                bf16=where != "cpu" and self.config.precision == "bf16", compiled=self.config.compiled(),
                num_batches=max(4, min(_PLAIN_BATCHES, _PLAIN_BATCH_BYTES // each)), tables=self.memory.plain_tables(),
            )
        )  # fmt: skip

    def _make_ours(self, name: str, packs: Packs, on_gpu: bool) -> Contender:
        hot_set, packed = packs[PACK_OF.get(name, "own")]
        # A map of its own: the driver locks mapped pages once, and a second contender would read them more slowly.
        packed = PackedDataset(packed.path)
        options: dict[str, Any] = {
            **self._training_options(), "device": "cpu" if name == "cpu" else self.device,
            "precision": self.config.precision if on_gpu else "fp32", "filled": self.memory.is_shared,
            "compiled": self.config.compiled(),
        }  # fmt: skip
        with self.memory.lent():
            if name == "paper":
                return PaperContender(packed, hot_set, **options)
            return OurContender(packed, hot_set, "tiered" if name in PACK_OF else name, **options)

    def _training_options(self) -> dict[str, Any]:
        prepared = self.prepared
        return {
            "model": prepared.model, "optimizer": prepared.optimizer, "learning_rate": prepared.learning_rate,
        }  # fmt: skip


def speed_key(size: int, contender: str) -> str:
    """Name of the cell of a contender's speed."""
    return f"{size}/speed/{contender}"


def free_memory(device: str) -> None:
    """Give back what contenders that are gone held."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
