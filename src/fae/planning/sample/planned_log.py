"""The sample as a log of the whole one's size: tables with rows that the sample did not see, a part held out.

Four fifths of the sample's stretches are the training split, every fifth stretch is the validation split. What the hot
rows of the training split serve of it is more than they would of the whole log, which has more different rows; what
they serve of the held-out stretches is less, because the whole log says more of which rows are popular. The truth lies
between. Rows that the training split did not access come in an order of chance, so that nothing of the held-out part
decides which of them are hot.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fae.artifacts.columnar_log import FORMAT_VERSION, KIND, SPLITS, ColumnarLog
from fae.artifacts.manifest import Plan, write_artifact
from fae.core.compiled import Int64
from fae.core.npy import NpyWriter, save_array
from fae.core.seeds import generator
from fae.profile.counting import count_accesses
from fae.profile.sampling import sampled_inputs

BLOCKS, HELD_OUT = 40, 5
"""Stretches of the sample, and and that every fifth of them is held out."""


def training_blocks(log: ColumnarLog) -> list[range]:
    """The training inputs in stretches, at most `BLOCKS`."""
    start, stop = log.split("train")
    number = max(1, min(BLOCKS, stop - start))
    ends = [start + (stop - start) * part // number for part in range(number + 1)]
    return [range(*pair) for pair in itertools.pairwise(ends)]


def make_planned_log(
    sample: ColumnarLog, blocks: Sequence[range], num_rows: Sequence[int], path: Path, *, seed: int
) -> ColumnarLog:
    """Write the planned log.

    Parameters
    ----------
    sample
        The sample, as ingest wrote it.
    blocks
        `training_blocks` of it.
    num_rows
        Rows of each table in the whole log, as many as the sample has or more.
    path
        Folder to write.
    """
    held_out = [block for number, block in enumerate(blocks) if number % HELD_OUT == HELD_OUT // 2]
    kept = [block for block in blocks if block not in held_out] or list(blocks)
    order = [*kept, *held_out]
    counts = count_accesses(
        sampled_inputs(sample, np.concatenate([np.arange(block.start, block.stop) for block in kept])), sample.features
    )
    places, all_counts = _new_ids(sample, counts, num_rows, seed)
    features = [
        dataclasses.replace(
            feature, num_embeddings=size, encoded=False,
            unknown_id=int(places[sample.table_offsets[table] + feature.unknown_id]) if feature.unknown_id >= 0 else -1,
        )
        for table, (feature, size) in enumerate(zip(sample.features, num_rows, strict=True))
    ]  # fmt: skip
    num_kept, num_held = (sum(map(len, part)) for part in (kept, held_out))
    splits = {"train": [0, num_kept], "validation": [num_kept, num_kept + num_held], "test": [num_kept + num_held] * 2}
    summary: dict[str, Any] = {
        "features": [feature.to_summary() for feature in features],
        "dense": list(sample.dense_names),
        **({} if sample.weight is None else {"weight": sample.weight}),
        "num_inputs": num_kept + num_held,
        "splits": {name: splits[name] for name in SPLITS},
    }
    plan = Plan(
        kind=KIND, format_version=FORMAT_VERSION, parameters={"rows": [int(size) for size in num_rows]},
        parents={"sample": sample.manifest.fingerprint}, command="fae plan RECIPE.toml",
    )  # fmt: skip
    first_rows = _slot_first_rows(sample)
    with write_artifact(path, plan, summary) as folder:
        with NpyWriter(folder / "ids.npy", np.int32, (sample.ids.shape[1],)) as file:
            for block in order:
                ids = np.asarray(sample.ids[block.start : block.stop])
                file.append(np.where(ids < 0, np.int32(-1), places[np.maximum(ids, 0) + first_rows]))
        for name in ("dense", "labels", *(["weights"] if sample.weight is not None else [])):
            array = getattr(sample, name)
            save_array(folder / f"{name}.npy", np.concatenate([array[block.start : block.stop] for block in order]))
        save_array(folder / "counts.npy", all_counts)
    return ColumnarLog(path)


def _slot_first_rows(log: ColumnarLog) -> Int64:
    return np.repeat(log.table_offsets[:-1], [feature.length for feature in log.features])


def _new_ids(
    log: ColumnarLog, counts: Int64, num_rows: Sequence[int], seed: int
) -> tuple[np.ndarray[Any, np.dtype[np.int32]], Int64]:
    """The new id of each of the sample's rows, int32, flat; and the accesses by new id, int64, flat.

    Rows are in order of popularity; those without an access are spread over all places behind.
    """
    places = np.empty(int(log.table_offsets[-1]), np.int32)
    new_counts = []
    for table, size in enumerate(num_rows):
        begin, end = log.table_offsets[table : table + 2]
        of_table = counts[begin:end]
        order = np.argsort(-of_table, kind="stable")
        num_seen = int(np.count_nonzero(of_table))
        own = places[begin:end]
        own[order[:num_seen]] = np.arange(num_seen, dtype=np.int32)
        unseen = order[num_seen:]
        random = generator(seed, "plan", "unseen rows", table)
        if len(unseen):
            own[unseen] = num_seen + random.choice(size - num_seen, len(unseen), replace=False, shuffle=False)
        padded = np.ones(size, np.int64)  # every row of the whole log is accessed
        padded[:num_seen] = of_table[order[:num_seen]]
        new_counts.append(padded)
    return places, np.concatenate(new_counts)
