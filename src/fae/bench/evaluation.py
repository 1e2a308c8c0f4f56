"""``fae bench paper``: one workload over all placements, cell by cell, into one JSON record.

Place in the flow: `fae.cli.bench` calls `run_bench`; the record's schema stands in ``docs/guide/bench.md``. Invariants: the
record is written after every sample, so the same command goes on behind a kill; samples of one table are taken in
turns; what cannot be measured here stands in the record with its reason.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fae.artifacts.hot_set import HotSet
from fae.artifacts.packed import PackedDataset
from fae.bench.config import CONTENDERS, BenchConfig
from fae.bench.contenders import (
    Contender,
    OurContender,
    PaperContender,
    PlainContender,
    random_rows,
    take_faster_precision,
)
from fae.bench.host import product_gflops, stolen_seconds
from fae.bench.plain_contender import PlainPyTorch
from fae.bench.preparation import Preparation
from fae.bench.ratios import LABELS, PACK_OF, tables
from fae.core.errors import ArtifactError, DeviceError, FaeError
from fae.core.files import json_values, locked_folder, write_record
from fae.core.progress import say, task
from fae.core.units import format_bytes, format_count
from fae.embedding.placements import make_embeddings
from fae.kernels.geometry import group_geometries
from fae.models.registry import build_model
from fae.run.record import library_versions, machine, source_commit
from fae.streaming.huge_pages import lending
from fae.streaming.row_store import RowOptimizer
from fae.training.config import TrainConfig
from fae.training.trainer import Trainer

RECORD = "paper.json"
FORMAT_VERSION = 1
_PLAIN_BATCHES = 256
_PLAIN_BATCH_BYTES = 2**30
_SHARED_FROM = 0.4
"""Contenders share one memory where their tables side by side would take more than this share of the machine's."""
ORDERS = {"shuffled": "mixed", "adaptive": "threshold", "interleaved": "own"}
"""Orders whose accuracy is measured, and the packed batches each is trained from."""


def run_bench(config: BenchConfig, out: str | Path, *, device: str | None = None) -> dict[str, Any]:
    """Measure what is missing in ``out/paper.json`` and return the record.

    Parameters
    ----------
    out
        Folder of the log, the packed batches and the record.
    device
        ``"cpu"`` or ``"cuda"``; None takes a GPU where there is one.

    Raises
    ------
    FaeError
        For options that cannot be, a record of other settings, a device that is not there.
    """
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if where == "cuda" and not torch.cuda.is_available():
        raise DeviceError("there is no CUDA device here (or torch is a CPU build); run with --device cpu")
    with locked_folder(Path(out)):
        return _Bench(config, Path(out), where).run()


class _Bench:
    def __init__(self, config: BenchConfig, out: Path, device: str) -> None:
        self.config, self.out, self.device = config, out, device
        self.started = time.monotonic()
        self.settings = _settings(config, device)
        self.record = self._open_record()
        self.prepared = Preparation(config, out)
        self.log_facts = self.prepared.facts()
        self.record["log"] = self.log_facts
        self.record["workload"] = {
            "name": config.workload, "title": self.prepared.workload.title, "recipe": self.prepared.workload.recipe,
            "model": dict(self.prepared.workload.model), "train": dict(self.prepared.workload.train),
            "hot": dict(self.prepared.workload.hot),
        }  # fmt: skip
        self.cells: dict[str, Any] = self.record["cells"]
        self.learning_rate = float(self.prepared.workload.train["learning_rate"])
        self._shared: Tensor | None = None

    def _open_record(self) -> dict[str, Any]:
        path = self.out / RECORD
        record: dict[str, Any] = {
            "kind": "paper_table", "format_version": FORMAT_VERSION, "settings": self.settings, "sessions": [],
            "cells": {}, "tables": [],
        }  # fmt: skip
        if path.exists():
            try:
                found = json.loads(path.read_text())
                before = found["settings"]
                assert isinstance(found["cells"], dict)
            except (OSError, ValueError, KeyError, TypeError, AssertionError):
                raise ArtifactError(f"{path} is no record of `fae bench paper`; choose another --out") from None
            for name, value in self.settings.items():
                had = before.get(name, self._without(name))
                if had != value:
                    raise ArtifactError(
                        f"{path} was measured with {name} = {had!r} and not {value!r}; choose another --out, or "
                        "delete it"
                    )
            record = found
        record["sessions"].append(
            {
                "command": "fae " + " ".join(sys.argv[1:]), "machine": machine(), "versions": library_versions(),
                "commit": source_commit(), "load_average": list(os.getloadavg()), "threads": torch.get_num_threads(),
                "spin": os.environ.get("GOMP_SPINCOUNT"),
            }
        )  # fmt: skip
        return record

    def _without(self, name: str) -> Any:
        """What a record was made with that is from before there was such a setting: mostly what is its default now."""
        if name == "no_compile":  # nothing was compiled then
            return self.device == "cuda" and self.config.recipe_compiles()
        return getattr(BenchConfig, name, None)

    def _save(self) -> None:
        self.record["tables"] = tables(self.cells, self._sizes(), self.log_facts)
        self.record["complete"] = self._is_complete()
        write_record(self.out / RECORD, json_values(self.record))

    def _sizes(self) -> list[int]:
        """Batch sizes of this command and of those before it."""
        known = [int(key.split("/")[0]) for key in self.cells]
        return list(dict.fromkeys([*self.config.sizes(), *known]))

    def _late(self) -> bool:
        return 0 < self.config.until_seconds < time.monotonic() - self.started

    def _is_complete(self) -> bool:
        speed = [
            cell for size in self.config.sizes() for name in self.config.contenders
            if (cell := self.cells.get(f"{size}/speed/{name}", {})) is not None
        ]  # fmt: skip
        done = all(len(cell.get("samples", [])) >= self.config.rounds or cell.get("final") for cell in speed)
        return done and all(key in self.cells for key in self._accuracy_cells())

    def _accuracy_cells(self) -> list[str]:
        sizes = {"first": self.config.sizes()[:1], "all": self.config.sizes(), "none": ()}[self.config.accuracy]
        return [f"{size}/accuracy/{order}" for size in sizes for order in ORDERS]

    def run(self) -> dict[str, Any]:
        say(f"bench: {self.prepared.workload.title}")
        facts = self.log_facts
        say(
            f"bench: {format_count(facts['train_inputs'])} training inputs, {format_count(facts['num_rows'])} rows "
            f"({format_bytes(facts['table_bytes'])} with state), of which the log touches "
            f"{format_count(facts['touched_rows'])}; on {self.device}"
        )
        if self.config.prepare_only:
            return self._prepare()
        for size in self.config.sizes():
            self._speed(size)
        for key in self._accuracy_cells():
            if key not in self.cells and not self._late():
                batch_size, _, order = key.split("/")
                self._accuracy(int(batch_size), order)
        self._save()
        if not self.record["complete"]:
            say("bench: not complete; the same command goes on from here")
        for text in summary_lines(self.record):
            say(text)
        for table in self.record["tables"]:
            if table["host"].get("warning"):
                say(f"bench: batches of {table['batch_size']:,}: {table['host']['warning']}")
        say(f"bench: the record is {self.out / RECORD}; `fae report {self.out}` draws it")
        return self.record

    def _prepare(self) -> dict[str, Any]:
        """Make every pack that the cells of this command read."""
        kinds = {"own", *(PACK_OF.get(name, "own") for name in self.config.contenders)}
        needed = {(size, kind) for size in self.config.sizes() for kind in kinds}
        needed |= {(int(key.split("/")[0]), ORDERS[key.split("/")[2]]) for key in self._accuracy_cells()}
        for size, kind in sorted(needed):
            self.prepared.packed(kind, size)
        self._save()
        say(f"bench: everything is prepared in {self.out}; the same command without --prepare measures")
        return self.record

    # Speed.

    def _speed(self, size: int) -> None:
        missing = []
        for name in CONTENDERS:
            if name not in self.config.contenders:
                continue
            cell = self.cells.setdefault(f"{size}/speed/{name}", {"samples": []})
            cell.pop("why", None)
            cell["final"] = False
            if why := self._cannot(name):
                cell.update(why=why, final=True)
            elif len(cell["samples"]) < self.config.rounds:
                missing.append(name)
        if not missing or self._late():
            self._save()
            return
        kinds = ["own", *(PACK_OF[name] for name in missing if name in PACK_OF)]
        packs = {kind: self.prepared.packed(kind, size) for kind in kinds}
        self._note_facts(size, packs)
        self._take_turns(size, missing, packs)
        self._tidy()  # out here: inside, a variable would still hold the last contender and its tables

    def _take_turns(self, size: int, missing: Sequence[str], packs: dict[str, tuple[HotSet, PackedDataset]]) -> None:
        contenders: dict[str, Contender] = {}
        total = sum(self.config.rounds - len(self.cells[f"{size}/speed/{name}"]["samples"]) for name in missing)
        with task(f"bench: batches of {size:,}", len(missing) + total, "cells") as progress:
            for name in missing:
                if self._late():
                    break
                made = self._attempt(size, name, partial(self._make, name, size, packs))
                if made is not None:
                    contenders[name] = made
                progress.advance(1, note=name)
            for number in range(self.config.rounds):
                for name in list(contenders):
                    cell = self.cells[f"{size}/speed/{name}"]
                    if len(cell["samples"]) > number or self._late():
                        continue
                    take = partial(contenders[name].sample, self.config.sample_seconds, self.config.min_batches)
                    before, stolen = product_gflops(), stolen_seconds()
                    sample = self._attempt(size, name, take)
                    if sample is None:
                        del contenders[name]
                        continue
                    host = {
                        "host_gflops": min(before, product_gflops()), "stolen_core_seconds": stolen_seconds() - stolen,
                    }  # fmt: skip
                    cell["samples"].append({**sample, **host, "session": len(self.record["sessions"]) - 1})
                    self._save()
                    progress.advance(1, note=f"{name} {format_count(sample['samples_per_second'])} samples/s")

    def _cannot(self, name: str) -> str:
        """Why a contender is not measured on this machine; empty where it can be."""
        if self.device != "cuda":
            return {
                "plain hybrid": "needs a GPU: without one it is plain cpu",
                "hybrid": "needs a GPU: without one it is cpu",
                "device": "needs a GPU",
            }.get(name, "")
        needed, (free, _) = self.log_facts["table_bytes"], torch.cuda.mem_get_info()
        if name == "device" and needed > 0.9 * free:
            return f"all rows take {format_bytes(needed)}, the GPU has {format_bytes(free)} free"
        return ""

    def _attempt(self, size: int, name: str, work: Callable[[], Any]) -> Any:
        """What `work` returns, or None with the reason in the cell; a contender's failure is a result too."""
        cell = self.cells[f"{size}/speed/{name}"]
        try:
            return work()
        except FaeError:
            raise
        except Exception as error:
            words = " ".join(str(error).split())[:300]
            cell["why"] = f"failed: {type(error).__name__}: {words}"
            say(f"bench: {LABELS[name]}: {cell['why']}")
            self._save()
            return None

    def _make(self, name: str, size: int, packs: dict[str, tuple[HotSet, PackedDataset]]) -> Contender:
        contender: Contender
        prepared = self.prepared
        common: dict[str, Any] = {
            "model": prepared.model, "optimizer": prepared.optimizer, "learning_rate": self.learning_rate,
        }  # fmt: skip
        on_gpu = self.device == "cuda" and name not in ("plain cpu", "cpu")
        if name.startswith("plain"):
            where = self.device if name == "plain hybrid" else "cpu"
            each = size * (2 * self.log_facts["input_bytes"] + 16)
            contender = PlainContender(
                PlainPyTorch(
                    prepared.log, **common, batch_size=size, device=where,
                    bf16=where != "cpu" and self.config.precision == "bf16", compiled=self.config.compiled(),
                    num_batches=max(4, min(_PLAIN_BATCHES, _PLAIN_BATCH_BYTES // each)), tables=self._plain_tables(),
                )
            )  # fmt: skip
        else:
            hot_set, packed = packs[PACK_OF.get(name, "own")]
            # A map of its own: the driver locks mapped pages once, and whoever came second would be fed more slowly.
            packed = PackedDataset(packed.path)
            with self._memory():
                options = {
                    **common, "device": "cpu" if name == "cpu" else self.device,
                    "precision": self.config.precision if on_gpu else "fp32", "filled": self._shares,
                    "compiled": self.config.compiled(),
                }  # fmt: skip
                contender = (
                    PaperContender(packed, hot_set, **options)
                    if name == "paper"
                    else OurContender(packed, hot_set, "tiered" if name in PACK_OF else name, **options)
                )
        seconds = min(1.0, self.config.sample_seconds)
        if not on_gpu and self.config.precision == "bf16":
            take_faster_precision(contender, seconds)
        contender.warm_up(seconds)
        cell = self.cells[f"{size}/speed/{name}"]
        cell["precision"] = contender.precision
        cell["device_bytes"] = contender.device_bytes
        if isinstance(contender, PaperContender):
            cell["swaps"] = contender.swaps
        return contender

    @property
    def _shares(self) -> bool:
        """Whether contenders take turns in one memory. State must start at zero, so only without it."""
        whole = machine()["memory_bytes"] or 2**62
        hosts = len([name for name in self.config.contenders if name != "device"])
        big = hosts * self.log_facts["table_bytes"] > _SHARED_FROM * whole
        return bool(big) and self.prepared.optimizer == "sgd"

    def _shared_rows(self) -> Tensor:
        if self._shared is None:
            floats = self.log_facts["table_bytes"] // 4
            say(f"bench: {format_bytes(4 * floats)} of host memory for the tables of all contenders, in turns")
            self._shared = random_rows(floats)
        return self._shared

    def _memory(self) -> AbstractContextManager[None]:
        return lending(self._shared_rows()) if self._shares else nullcontext()

    def _plain_tables(self) -> Tensor:
        """Memory of plain PyTorch's rows, on huge pages like ours."""
        if self._shares:
            return self._shared_rows()
        return random_rows(self.log_facts["num_rows"] * self.prepared.model.embedding_dim)

    def _note_facts(self, size: int, packs: dict[str, tuple[HotSet, PackedDataset]]) -> None:
        facts = self.cells.setdefault(f"{size}/facts", {})
        features = self.prepared.log.features
        geometries = group_geometries(
            [feature.length for feature in features], [feature.pooling for feature in features],
            [self.prepared.model.embedding_dim] * len(features),
        )  # fmt: skip
        facts.update(batch_size=size, row_bytes=self.prepared.row_bytes, width=sum(each.width for each in geometries))
        for kind, (hot_set, packed) in packs.items():
            train, summary = packed.train, hot_set.summary
            facts[kind] = {
                "selection": summary["selection"], "budget_bytes": summary["budget_bytes"],
                "hot_rows": summary["num_rows"], "hot_bytes": summary["bytes"],
                "staging_bytes": summary["staging_bytes"],
                "input_share": packed.summary["input_share"], "coverage": packed.summary["coverage"],
                "label_rate": packed.summary.get("label_rate"),
                "hot_batches": train.num_hot_batches, "cold_batches": train.num_batches - train.num_hot_batches,
                "train_inputs": train.num_inputs, "staged_rows": staged_rows(packed),
            }  # fmt: skip

    # Accuracy.

    def _accuracy(self, size: int, order: str) -> None:
        self._train_epoch(size, order)
        self._tidy()

    def _train_epoch(self, size: int, order: str) -> None:
        kind = ORDERS[order]
        hot_set, packed = self.prepared.packed(kind, size)
        self._note_facts(size, {kind: (hot_set, packed)})
        placement = "paper" if order == "adaptive" else "tiered" if self.device == "cuda" else "cpu"
        seed, prepared = self.config.seed, self.prepared
        say(f"bench: an epoch to its end, batches of {size:,}, order {order}, placement {placement}")
        train = TrainConfig(
            batch_size=size, optimizer=prepared.optimizer, learning_rate=self.learning_rate,  # type: ignore[arg-type]
            dense_learning_rate=prepared.workload.train.get("dense_learning_rate"),
            placement=placement, order=order,  # type: ignore[arg-type]
            precision=self.config.precision, seed=seed, checkpoint_minutes=0.0,
            compile=self.config.compiled(),
        )  # fmt: skip
        rows = RowOptimizer(name=prepared.optimizer, learning_rate=self.learning_rate)
        started = time.perf_counter()
        with self._memory():
            embeddings = make_embeddings(placement, hot_set, rows, device=self.device)
        embeddings.initialise(seed)
        initialised = time.perf_counter() - started
        model = build_model(prepared.model, hot_set.layout.features, packed.num_dense, seed=seed)
        model = model.to(embeddings.device)
        try:
            result = Trainer(model, embeddings, packed, train).fit()
        except FaeError as error:  # a loss that is no number is a result
            result = {"train": {}, "test": {}, "validation": {}, "why": str(error)}
            say(f"bench: {error}")
        self.cells[f"{size}/accuracy/{order}"] = {
            **result, "order": order, "placement": placement, "seconds_to_initialise": initialised,
            "session": len(self.record["sessions"]) - 1,
        }  # fmt: skip
        self._save()

    def _tidy(self) -> None:
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()


def staged_rows(packed: PackedDataset) -> int:
    """Cold rows that the training batches of an epoch bring to the device, and take back."""
    return sum(
        len(rows) for index in range(packed.train.num_hot_batches, packed.train.num_batches)
        for rows in packed.train.batch(index).cold_rows
    )  # fmt: skip


def summary_lines(record: dict[str, Any]) -> list[str]:
    """The tables for a terminal."""
    lines = []
    for table in record["tables"]:
        lines.append(f"batches of {table['batch_size']:,}")
        for row in table["rows"]:
            low, high = row["spread"]
            over = [f"{row[key]:.1f}x {key}" for key in ("over plain cpu", "over plain hybrid") if key in row]
            auc = f", AUC {row['auc']:.4f}" if row["auc"] is not None else ""
            lines.append(
                f"  {row['label']:26} {format_count(row['samples_per_second'])} samples/s "
                f"({format_count(low)} to {format_count(high)}), epoch {row['epoch_seconds']:.1f} s; "
                + ", ".join(over) + auc
            )  # fmt: skip
        lines += [f"  {each['label']:26} left out: {each['why']}" for each in table["left_out"]]
    return lines


def _settings(config: BenchConfig, device: str) -> dict[str, Any]:
    """What must be the same for cells to stand in one table."""
    values = asdict(config)
    free = ("batch_sizes", "contenders", "rounds", "accuracy", "until_seconds", "sample_seconds", "min_batches")
    for name in (*free, "prepare_only"):
        del values[name]
    return {**values, "device": device}
