"""What the speed benchmarks share: logs packed for a hot share, and contenders that all train the same model on them.

Invariant: every contender of a group trains the same DLRM with the same optimizers, batch size and precision on the
same inputs; rows hold small random values, which decide no address and no byte that is moved.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from fae.artifacts.columnar_log import SPLITS, ColumnarLog
from fae.artifacts.manifest import Manifest
from fae.artifacts.packed import PackedDataset
from fae.artifacts.row_layout import RowLayout
from fae.bench.contenders import OurContender, PaperContender
from fae.bench.host import product_gflops
from fae.bench.plain_contender import synchronize
from fae.embedding.base import Embeddings
from fae.models.config import DLRMConfig
from fae.pack.pack import pack
from fae.synthetic.columnar_writer import write_columnar
from fae.synthetic.config import SyntheticConfig

from common import KAGGLE_ROWS, make_log

RING_DEPTH = 8
LEARNING_RATE = 0.01


def open_log(name: str, folder: Path, num_inputs: int, rows: Sequence[int] = KAGGLE_ROWS) -> ColumnarLog:
    """``zipf``: independent columns, exponent 1.05; ``criteo``: columns from latent users and items. Made once.

    The latter touches fewer rows: it is two and a half times as long, or 5 % of the rows would be all that it touches.
    """
    path = folder / name
    if path.exists():
        return ColumnarLog(path)
    if name == "zipf":
        return make_log(path, num_inputs, rows=rows)
    scale, longer = min(1.0, max(rows) / max(KAGGLE_ROWS)), 5 * num_inputs // 2
    # Without drift: values that come and go would double the tables.
    config = SyntheticConfig(shape="criteo", num_inputs=longer, scale=scale, drift=0.0)
    write_columnar(config, path, ids="encoded")
    return ColumnarLog(path)


@lru_cache(maxsize=4)
def ranks_of(path: Path) -> list[np.ndarray | None]:
    """Of every table of a log: rows' ranks by their counts, None where they are the ids."""
    log, ranks = ColumnarLog(path), []
    counts = np.asarray(log.counts)
    for first, last in pairwise(log.table_offsets):
        rank = np.empty(last - first, np.int32)
        rank[np.argsort(-counts[first:last], kind="stable")] = np.arange(len(rank), dtype=np.int32)
        ranks.append(None if np.array_equal(rank, np.arange(len(rank))) else rank)
    return ranks


def hot_set(
    log: ColumnarLog,
    share: float,
    *,
    dim: int,
    batch_size: int,
    mixed: bool,
    optimizer: str = "sgd",
    depth: int = RING_DEPTH,
) -> Any:
    """The most accessed `share` of all rows hot, in storage order of their counts; staging for the largest batch."""
    counts = np.asarray(log.counts)
    tables = [slice(log.table_offsets[t], log.table_offsets[t + 1]) for t in range(len(log.features))]
    ranks, sizes = ranks_of(log.path), [part.stop - part.start for part in tables]
    wanted = round(share * len(counts))
    if wanted >= len(counts):
        num_hot = sizes
    else:
        limit = np.partition(counts, len(counts) - wanted)[len(counts) - wanted] if wanted else counts.max() + 1
        num_hot = [int(np.count_nonzero(counts[part] > limit)) for part in tables]
        missing = wanted - sum(num_hot)
        for table in np.argsort(sizes)[::-1]:  # ties at the limit: the largest tables take them
            more = min(missing, sizes[table] - num_hot[table])
            num_hot[table] += more
            missing -= more
    layout = RowLayout(log.features, [dim] * len(log.features), num_hot, ranks)
    most = 0
    random = np.random.default_rng(1)
    for name in 2 * SPLITS:
        start, stop = log.split(name)
        if start == stop:
            continue
        chosen = random.choice(stop - start, min(2 * batch_size, stop - start), replace=False) + start
        ids = np.asarray(log.ids[chosen]).astype(np.int64)
        rank_of = np.stack(
            [ids[:, t] if ranks[t] is None else ranks[t][ids[:, t]] for t in range(len(log.features))], axis=1
        )
        cold = rank_of >= np.array(num_hot)
        if not mixed and name == "train":  # held-out batches take any inputs
            keep = cold.any(axis=1)
            cold, rank_of = cold[keep], rank_of[keep]
        cold, rank_of = cold[:batch_size], rank_of[:batch_size]
        most = max(most, sum(len(np.unique(rank_of[cold[:, t], t])) for t in range(len(log.features))))
    parameters = {"share": share, "mixed": mixed, "batch_size": batch_size}
    staging = min(int(1.08 * most) + len(log.features), sum(sizes) - sum(num_hot))
    return SimpleNamespace(
        layout=layout, ring_depth=depth, staging_rows=(staging,), batch_size=batch_size, mixed=mixed,
        optimizer=optimizer,
        manifest=Manifest(kind="hot_set", format_version=1, fingerprint="0" * 32, parameters=parameters),
    )  # fmt: skip


def packed_log(log: ColumnarLog, hot: Any, folder: Path) -> PackedDataset:
    """Pack once per hot set."""
    parameters = hot.manifest.parameters
    name = f"packed_{log.path.name}_{parameters['share']}_{parameters['mixed']}_{parameters['batch_size']}"
    path = folder / name
    if path.exists():
        return PackedDataset(path)
    return pack(log, hot, path, seed=1)


def contender_options(
    dim: int, optimizer: str, device: str, precision: str | None, mlps: dict[str, tuple[int, ...]] | None
) -> dict[str, Any]:
    """Of this file's DLRM, as `fae.bench.contenders` takes them; no precision: bf16 on a GPU and fp32 on a CPU."""
    return {
        "model": DLRMConfig(name="dlrm", embedding_dim=dim, **(mlps or {})), "optimizer": optimizer,
        "learning_rate": LEARNING_RATE, "device": device,
        "precision": precision or ("bf16" if torch.device(device).type == "cuda" else "fp32"),
    }  # fmt: skip


class Measured:
    """What the speed benchmarks ask of FAE's contenders, beside `run`."""

    packed: PackedDataset
    embeddings: Embeddings
    device: torch.device

    @property
    def gpu_row_bytes(self) -> int:
        return self.embeddings.device_bytes if self.device.type == "cuda" else 0

    @property
    def staging_bytes(self) -> int:
        tiers = getattr(self.embeddings, "_tiers", [])
        return sum(
            RING_DEPTH * tier.slot_rows * 4 * (tier.bank.weight.shape[1] + tier.bank.state.shape[1]) for tier in tiers
        )


class PaperPlacement(Measured, PaperContender):
    """FAE as published; a run's seconds are those of its share of an epoch at R(50), swaps included."""

    def __init__(self, packed: PackedDataset, hot: Any, *, dim: int, optimizer: str, device: str) -> None:
        super().__init__(packed, hot, **contender_options(dim, optimizer, device, None, None))
        self._is_warm = False

    def run(self, num_steps: int) -> float:
        """Half of the batches cold, half of them hot; a step of the epoch they belong to, so many times."""
        if not self._is_warm:
            self.warm_up(0.0)
            self._is_warm = True
        found = self.sample(0.0, max(1, num_steps // 2))
        return num_steps * self.packed.batch_size / float(found["samples_per_second"])


class OurPlacement(Measured, OurContender):
    """FAE under one placement; `run` trains batches in the order that the schedule would choose."""

    def __init__(
        self,
        packed: PackedDataset,
        hot: Any,
        placement: str,
        *,
        dim: int,
        optimizer: str,
        device: str,
        precision: str | None = None,
        capture: bool = True,
        mlps: dict[str, tuple[int, ...]] | None = None,
    ) -> None:
        options = contender_options(dim, optimizer, device, precision, mlps)
        super().__init__(packed, hot, placement, capture=capture, **options)

    def run_feeds(self, num_steps: int) -> float:
        """Seconds of bringing so many batches, and their cold rows, to the device and back, with no step in between."""
        runner = self.runner

        def no_step(batch: Any) -> None:
            self.embeddings.steps += 1  # who says so has written the slot; what is in it does not matter here

        self.runner = no_step
        try:
            return self.run(num_steps)
        finally:
            self.runner = runner

    def run_timed(self, num_steps: int) -> dict[str, float]:
        """Medians on the device, in seconds: of a step, and from one step's end to when the next one can start."""
        marks = [tuple(torch.cuda.Event(enable_timing=True) for _ in range(2)) for _ in range(num_steps)]
        pairs = iter(marks)
        runner = self.runner

        def timed(batch: Any) -> None:
            begin, end = next(pairs)
            begin.record()
            runner(batch)
            end.record()

        self.runner = timed
        try:
            self.run(num_steps)
        finally:
            self.runner = runner
        steps = [begin.elapsed_time(end) for begin, end in marks]
        gaps = [before[1].elapsed_time(after[0]) for before, after in pairwise(marks)]
        return {
            "step": 1e-3 * float(np.median(steps)), "gap": 1e-3 * float(np.median(gaps)),
            "mean step": 1e-3 * float(np.mean(steps)), "mean gap": 1e-3 * float(np.mean(gaps)),
        }  # fmt: skip

    def run_graph(self, num_steps: int) -> float:
        """Seconds of replaying one captured step that many times: the step alone, its batch already there."""
        graph = next(iter(self.runner._graphs.values()))
        synchronize(self.device)
        started = time.perf_counter()
        for _ in range(num_steps):
            graph.replay()
        synchronize(self.device)
        return time.perf_counter() - started


_STATE = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu", "clocks_event_reasons.active")


def gpu_state() -> dict[str, str]:
    """Clocks (MHz), power (W), temperature and what holds clocks back of the first GPU; empty where nothing says so."""
    which = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    command = ["nvidia-smi", f"--query-gpu={','.join(_STATE)}", "--format=csv,noheader,nounits", "-i", which]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(_STATE, (each.strip() for each in said.strip().split(",")), strict=False))


def interleaved_runs(
    contenders: dict[str, Any],
    steps: dict[str, int],
    rounds: int,
    say: Callable[[str], None],
    states: dict[str, list[dict[str, str]]] | None = None,
) -> dict[str, list[float]]:
    """Seconds a step of every contender, in turns, one warm-up run each; what fails is left out and said.

    `states`, where given, is filled with `gpu_state` and the rate of the host's products behind every sample: where
    samples stood on two levels, others used the host.
    """
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for round_number in range(rounds + 1):
        for name in list(samples):
            try:
                few = min(steps[name], max(24, steps[name] // 4))
                count = steps[name] if round_number else few
                if count > few:  # what ran before it has left its marks on caches and clocks
                    contenders[name].run(few)
                seconds = contenders[name].run(count) / count
            except Exception as error:  # a contender's failure is a result too
                say(f"{name}: failed: {type(error).__name__}: {str(error)[:300]}")
                del samples[name]
                continue
            if round_number:
                samples[name].append(seconds)
                if states is not None:
                    states.setdefault(name, []).append({**gpu_state(), "host_gflops": f"{product_gflops():.0f}"})
    return samples


def kernel_table(contender: Any, num_steps: int) -> list[dict[str, Any]]:
    """Seconds a step of every kernel and copy on the GPU, by torch's profiler, longest first."""
    from torch.profiler import ProfilerActivity, profile

    contender.run(16)
    with profile(activities=[ProfilerActivity.CUDA]) as traced:
        contender.run(num_steps)
    rows = [
        {
            "kernel": event.key[:120],
            "microseconds_a_step": event.self_device_time_total / num_steps,
            "calls_a_step": event.count / num_steps,
        }
        for event in traced.key_averages()
        if event.self_device_time_total > 0
    ]
    return sorted(rows, key=lambda row: -row["microseconds_a_step"])
