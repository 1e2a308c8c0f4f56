"""Pack: from the columnar log and the hot set to batches whose every lookup is a final address.

Training batches hold every training input once; validation and test batches hold theirs in log order. The result
depends on the log, the hot set and the seed, not on memory or threads. The trainer chooses the order of batches, not
pack.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fae.artifacts.checksums import describe_written
from fae.artifacts.columnar_log import ColumnarLog
from fae.artifacts.log_contents import check_inputs
from fae.artifacts.manifest import Plan, write_artifact
from fae.artifacts.packed import COMMAND, FORMAT_VERSION, KIND, OLDER_VERSIONS, PackedDataset
from fae.artifacts.row_layout import RowLayout
from fae.core.errors import ArtifactError
from fae.core.host_memory import available_bytes
from fae.core.progress import Task, task
from fae.pack.batching import Batcher
from fae.pack.compose import Composer, check_address_space
from fae.pack.log_reader import input_bytes, log_inputs
from fae.pack.shuffle import ShuffledInputs
from fae.pack.writer import SplitWriter

if TYPE_CHECKING:
    from fae.artifacts.hot_set import HotSet

WINDOW_BYTES = 512 * 2**20
"""Bytes of a validation or test split whose inputs are cut into batches at a time; 8 bytes an input are held."""


def plan_pack(log: ColumnarLog, hot_set: HotSet, *, seed: int) -> Plan:
    """What the packed batches will be made from. Instant.

    Parameters
    ----------
    seed
        Decides the order of the training inputs.
    """
    return Plan(
        kind=KIND,
        format_version=FORMAT_VERSION,
        parameters={"seed": seed},
        parents={artifact.kind: artifact.fingerprint for artifact in (log.manifest, hot_set.manifest)},
        command=COMMAND,
        older_versions=OLDER_VERSIONS,
    )


def default_memory() -> int:
    """Bytes of inputs that pack holds at once where it is told nothing: a quarter of the memory that is available, and
    1 GiB at least. What is packed does not depend on it."""
    return max(2**30, available_bytes() // 4)


def pack(log: ColumnarLog, hot_set: HotSet, path: Path, *, seed: int, memory_bytes: int | None = None) -> PackedDataset:
    """Classify inputs, form batches, translate lookups, write them.

    Parameters
    ----------
    path
        Folder of the artifact; replaced when the new one is complete.
    seed
        Decides the order of the training inputs.
    memory_bytes
        Bytes of inputs to hold at once, `default_memory` if None; a training split above it is sorted on the disk
        first, with the same result. One bucket of 32 MiB and the buffers of a chunk of batches are needed in any case.

    Raises
    ------
    ArtifactError
        If the hot set is not of this log, its staging ring cannot hold one input, or the disk is full.
    RecipeError
        If a batch is too large for int32 addresses.
    """
    check_match(log, hot_set)
    check_inputs(log)
    summary: dict[str, Any] = {}
    files: dict[str, dict[str, Any]] = {}
    with write_artifact(path, plan_pack(log, hot_set, seed=seed), summary, files=files) as folder:
        packer = Packer(log, hot_set, folder)
        with task("pack", 2 * log.split("train")[1] + packer.num_evaluated) as progress:
            train = packer.train(seed, default_memory() if memory_bytes is None else memory_bytes, progress)
            splits = {"train": train.pop("split")}
            for name in ("validation", "test"):
                splits[name] = packer.evaluation(name, progress)
        summary.update(
            **train,
            batch_size=hot_set.batch_size,
            num_slots=hot_set.layout.num_slots,
            num_dense=len(log.dense_names),
            dense=list(log.dense_names),
            **({"weighted": True} if log.weight is not None else {}),
            num_groups=len(hot_set.layout.groups),
            group_slots=[len(hot_set.layout.group_slots(group)) for group in range(len(hot_set.layout.groups))],
            mixed=hot_set.mixed,
            features=[feature.name for feature in hot_set.layout.features],
            splits=splits,
            bytes=sum(file.stat().st_size for file in packer.checksums),
        )
        files.update(describe_written(folder, packer.checksums))
    return PackedDataset(path)


def check_match(log: ColumnarLog, hot_set: HotSet) -> None:
    """Refuse a hot set whose tables are not the log's, or whose ring cannot hold a single input.

    Raises
    ------
    ArtifactError
        If they differ, or the ring is too small.
    RecipeError
        If a batch is too large for int32 addresses.
    """
    layout: RowLayout = hot_set.layout
    for ours, theirs in zip(log.features, layout.features, strict=False):
        if ours != theirs:
            raise ArtifactError(
                f"the hot set was made for {theirs.name!r} with {theirs.num_embeddings} rows, the log has "
                f"{ours.name!r} with {ours.num_embeddings}; run `fae calibrate RECIPE.toml`"
            )
    if len(log.features) != len(layout.features):
        raise ArtifactError(
            f"the hot set has {len(layout.features)} tables, the log has {len(log.features)}; "
            "run `fae calibrate RECIPE.toml`"
        )
    check_address_space(layout, hot_set.batch_size)
    for index, group in enumerate(layout.groups):
        one_input = sum(
            min(layout.features[t].length, layout.features[t].num_embeddings - layout.num_hot[t]) for t in group.tables
        )
        if hot_set.staging_rows[index] < one_input:
            raise ArtifactError(
                f"the hot set stages {hot_set.staging_rows[index]} rows of width {group.embedding_dim} a batch, one "
                f"input may need {one_input}; run `fae calibrate RECIPE.toml` with a larger [hot] budget"
            )


class Packer:
    """One run of pack: passes the inputs of every split, in order, to what makes batches of them.

    Parameters
    ----------
    writer
        What takes the batches of a split.

    Attributes
    ----------
    checksums
        crc32 of every file that was written.
    """

    def __init__(
        self, log: ColumnarLog, hot_set: HotSet | Any, folder: Path, writer: type[SplitWriter] = SplitWriter
    ) -> None:
        self.log, self.hot_set, self.folder, self._make_writer = log, hot_set, folder, writer
        self.layout: RowLayout = hot_set.layout
        self.checksums: dict[Path, int] = {}
        self.num_evaluated = sum(stop - start for start, stop in (log.split("validation"), log.split("test")))

    def _writer(self, split: str, num_hot_batches: int) -> SplitWriter:
        return self._make_writer(
            self.folder / split,
            batch_size=self.hot_set.batch_size,
            num_slots=self.layout.num_slots,
            num_dense=len(self.log.dense_names),
            num_groups=len(self.layout.groups),
            num_hot_batches=num_hot_batches,
            with_order=split == "train",
            with_weights=self.log.weight is not None,
        )

    def _composer(self, *, with_addresses: bool) -> Composer:
        return Composer(
            self.layout, len(self.log.dense_names), self.hot_set.batch_size, self.hot_set.staging_rows,
            with_addresses=with_addresses,
        )  # fmt: skip

    def train(self, seed: int, memory_bytes: int, progress: Task) -> dict[str, Any]:
        """Pack the training split; returns its part of the summary."""
        mixed, batch_size = self.hot_set.mixed, self.hot_set.batch_size
        composer = self._composer(with_addresses=False)
        shuffled = ShuffledInputs(self.log, self.layout, seed, memory_bytes, self.folder, progress, mixed=mixed)
        num_hot_batches = 0 if mixed else -(-shuffled.counts.hot_inputs // batch_size)
        with self._writer("train", num_hot_batches) as writer, Batcher(composer, writer, progress) as batcher:
            for part in shuffled.parts():
                left_hot = part.hot[batcher.make_batches("hot", part.inputs, part.hot, last=part.is_last) :]
                left_cold = part.cold[batcher.make_batches("cold", part.inputs, part.cold, last=part.is_last) :]
                batcher.drain()
                if not part.is_last:
                    shuffled.carry(part.inputs.take(np.concatenate([left_hot, left_cold])), len(left_hot))
        self.checksums.update(writer.checksums)
        cold = batcher.streams["cold"]
        num_cold_batches = cold.num_batches
        num_inputs, counts = shuffled.num_inputs, shuffled.counts
        num_hot = counts.hot_inputs
        num_batches = num_hot_batches + num_cold_batches
        return {
            "num_inputs": num_inputs,
            "num_hot_inputs": num_hot,
            "input_share": _share(num_hot, num_inputs),
            "coverage": _share(counts.hot_lookups, counts.lookups),
            "label_rate": {
                "hot": _share(counts.hot_clicks, num_hot) if num_hot else None,
                "cold": (
                    _share(counts.clicks - counts.hot_clicks, num_inputs - num_hot) if num_inputs > num_hot else None
                ),
            },
            "num_batches": {"hot": num_hot_batches, "cold": num_cold_batches},
            "closed_early": cold.closed_early,
            "cold_rows_per_batch": [_share(int(rows), num_cold_batches) for rows in cold.cold_rows],
            "padding_share": 1.0 - _share(num_inputs, num_batches * batch_size) if num_batches else 0.0,
            "split": _split_summary(num_inputs, num_batches, num_hot_batches),
        }

    def evaluation(self, split: str, progress: Task) -> dict[str, int]:
        """Pack a split in log order, window by window; returns its part of the summary."""
        begin, end = self.log.split(split)
        composer = self._composer(with_addresses=True)
        window = max(
            composer.group_batches * self.hot_set.batch_size,
            WINDOW_BYTES // input_bytes(self.layout.num_slots, len(self.log.dense_names)),
        )
        inputs, at = log_inputs(self.log, begin, end), 0
        with self._writer(split, 0) as writer, Batcher(composer, writer, progress) as batcher:
            while at < len(inputs):
                stop = min(at + window, len(inputs))
                at += batcher.make_batches("cold", inputs, np.arange(at, stop), last=stop == len(inputs))
        self.checksums.update(writer.checksums)
        return _split_summary(end - begin, batcher.streams["cold"].num_batches, 0)


def _split_summary(num_inputs: int, num_batches: int, num_hot_batches: int) -> dict[str, int]:
    return {"num_inputs": num_inputs, "num_batches": num_batches, "num_hot_batches": num_hot_batches}


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
