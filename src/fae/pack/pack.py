"""Pack: from the columnar log and the hot set to batches whose every lookup is a final address.

Training batches hold every training input once; validation and test batches hold theirs in log order. The result
depends on the log, the hot set and the seed, not on memory or threads. The trainer chooses the order of batches, not
pack.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fae.artifacts.columnar_log import ColumnarLog
from fae.artifacts.log_contents import check_inputs
from fae.artifacts.manifest import Plan, write_artifact
from fae.artifacts.packed import COMMAND, FORMAT_VERSION, KIND, PackedDataset
from fae.artifacts.row_layout import RowLayout
from fae.core.errors import ArtifactError
from fae.core.progress import Task, task
from fae.pack.compose import BatchChunk, Composer, check_address_space
from fae.pack.log_reader import LogInputs, input_bytes, log_inputs
from fae.pack.shuffle import ShuffledInputs
from fae.pack.writer import SplitWriter

if TYPE_CHECKING:
    from fae.artifacts.hot_set import HotSet

WINDOW_BYTES = 64 * 2**20
"""Bytes of a validation or test split that are packed at a time."""


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
    )


def pack(log: ColumnarLog, hot_set: HotSet, path: Path, *, seed: int, memory_bytes: int = 2**30) -> PackedDataset:
    """Classify inputs, form batches, translate lookups, write them.

    Parameters
    ----------
    path
        Folder of the artifact; replaced when the new one is complete.
    seed
        Decides the order of the training inputs.
    memory_bytes
        Bytes of inputs to hold at once; a training split above it is sorted on the disk first, with the same result.
        One bucket of 32 MiB and the buffers of a chunk of batches are needed in any case.

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
    with write_artifact(path, plan_pack(log, hot_set, seed=seed), summary) as folder:
        packer = Packer(log, hot_set, folder)
        with task("pack", 2 * log.split("train")[1] + packer.num_evaluated) as progress:
            train = packer.train(seed, memory_bytes, progress)
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
            mixed=hot_set.mixed,
            features=[feature.name for feature in hot_set.layout.features],
            splits=splits,
            bytes=sum(file.stat().st_size for file in folder.rglob("*.npy")),
        )
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
    """One run of pack: composes batches chunk by chunk and passes them to the writers.

    Parameters
    ----------
    writer
        What takes the batches of a split.
    """

    def __init__(
        self, log: ColumnarLog, hot_set: HotSet | Any, folder: Path, writer: type[SplitWriter] = SplitWriter
    ) -> None:
        self.log, self.hot_set, self.folder, self._make_writer = log, hot_set, folder, writer
        self.layout: RowLayout = hot_set.layout
        self.composer = Composer(self.layout, len(log.dense_names), hot_set.batch_size, hot_set.staging_rows)
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

    def train(self, seed: int, memory_bytes: int, progress: Task) -> dict[str, Any]:
        """Pack the training split; returns its part of the summary."""
        mixed, batch_size, num_groups = self.hot_set.mixed, self.hot_set.batch_size, len(self.layout.groups)
        shuffled = ShuffledInputs(self.log, self.layout, seed, memory_bytes, self.folder, progress)
        num_hot_batches = 0 if mixed else -(-shuffled.num_hot_inputs // batch_size)
        num_cold_batches = closed_early = 0
        cold_rows = np.zeros(num_groups, np.int64)
        with self._writer("train", num_hot_batches) as writer:
            carried: LogInputs | None = None
            for inputs, positions, last in shuffled.parts():
                if carried is not None:
                    inputs, positions = _put_before(carried, inputs, positions)
                is_hot = inputs.hot[positions] & (not mixed)
                left = []
                for kind, of_kind in (("hot", positions[is_hot]), ("cold", positions[~is_hot])):
                    while len(of_kind):
                        chunk = self.composer.next_chunk(inputs, of_kind, last=last, cold=kind == "cold")
                        if chunk.num_taken == 0:
                            break
                        writer.write(kind, chunk.arrays)
                        of_kind = of_kind[chunk.num_taken :]
                        progress.advance(chunk.num_taken, kind)
                        if kind == "cold":
                            num_cold_batches += len(chunk.arrays.num_inputs)
                            closed_early += chunk.num_closed_early
                            cold_rows += chunk.arrays.cold_offsets[-1]
                    left.append(of_kind)
                carried = inputs.take(np.concatenate(left))
        num_inputs, num_hot = shuffled.num_inputs, shuffled.num_hot_inputs
        num_batches = num_hot_batches + num_cold_batches
        return {
            "num_inputs": num_inputs,
            "num_hot_inputs": num_hot,
            "input_share": _share(num_hot, num_inputs),
            "coverage": _share(shuffled.counts.hot_lookups, shuffled.counts.lookups),
            "label_rate": {
                "hot": _share(shuffled.hot_clicks, num_hot) if num_hot else None,
                "cold": (
                    _share(shuffled.num_clicks - shuffled.hot_clicks, num_inputs - num_hot)
                    if num_inputs > num_hot
                    else None
                ),
            },
            "num_batches": {"hot": num_hot_batches, "cold": num_cold_batches},
            "closed_early": closed_early,
            "cold_rows_per_batch": [_share(int(rows), num_cold_batches) for rows in cold_rows],
            "padding_share": 1.0 - _share(num_inputs, num_batches * batch_size) if num_batches else 0.0,
            "split": _split_summary(num_inputs, num_batches, num_hot_batches),
        }

    def evaluation(self, split: str, progress: Task) -> dict[str, int]:
        """Pack a split in log order, window by window; returns its part of the summary."""
        begin, end = self.log.split(split)
        window = max(
            self.composer.max_batches * self.hot_set.batch_size,
            WINDOW_BYTES // input_bytes(self.layout.num_slots, len(self.log.dense_names)),
        )
        num_batches, at = 0, begin
        with self._writer(split, 0) as writer:
            while at < end:
                stop = min(at + window, end)
                inputs, positions = log_inputs(self.log, at, stop), np.arange(stop - at)
                taken = 0
                while taken < len(positions):
                    chunk: BatchChunk = self.composer.next_chunk(inputs, positions[taken:], last=stop == end)
                    if chunk.num_taken == 0:
                        break
                    writer.write("cold", chunk.arrays)
                    taken += chunk.num_taken
                    num_batches += len(chunk.arrays.num_inputs)
                    progress.advance(chunk.num_taken, split)
                at += taken
        return _split_summary(end - begin, num_batches, 0)


def _put_before(
    carried: LogInputs, inputs: LogInputs, positions: np.ndarray[Any, np.dtype[np.int64]]
) -> tuple[LogInputs, np.ndarray[Any, np.dtype[np.int64]]]:
    """Put the inputs that filled no batch of the last part before those of the next part, in their order."""
    columns: dict[str, Any] = {
        name: None if column is None else np.concatenate([getattr(carried, name), column])
        for name, column in vars(inputs).items()
    }
    joined = LogInputs(**columns)
    return joined, np.concatenate([np.arange(len(carried)), positions + len(carried)])


def _split_summary(num_inputs: int, num_batches: int, num_hot_batches: int) -> dict[str, int]:
    return {"num_inputs": num_inputs, "num_batches": num_batches, "num_hot_batches": num_hot_batches}


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
