"""Bytes an input on its way to a GPU, by the code that copies them, and what the forms of a batch cost a step.

    python benchmarks/studies/input_bytes.py [--log zipf] [--inputs 1000000] [--cap 1000000] [--out FILE]
    python benchmarks/studies/input_bytes.py --steps 600 [--rounds 3] [--placements device]

DLRM over Criteo's shape (26 columns of one lookup, 13 dense features), B = 32,768 a GPU, 5 % of the rows hot. Forms:
``format 3`` (the order as int32, float32 dense features), ``planes`` (format 4), ``planes, bf16`` (format 4 with dense
features rounded in host memory, as a training in bf16 sends them). Bytes are those of the header and of every piece of
a mean full batch, on one GPU and on rank 0 of two whose batch is twice as large; ``order``, ``dense`` and ``rest`` are
its parts. With --steps a GPU trains the forms in turns: whole steps, steps without their work, and the step alone.

Writes benchmarks/results/input_bytes.json.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import fae  # noqa: F401 isort: skip  # before torch: it sets how long torch's threads spin

import numpy as np
import torch

from fae.artifacts.packed import BatchSet, PackedDataset
from fae.artifacts.stored.order_planes import OrderArrays
from fae.core.own_pages import in_own_pages
from fae.distributed.rank_batches import Owned, RankBatches
from fae.streaming.input_layout import InputLayout

from common import (
    KAGGLE_ROWS,
    RESULTS,
    capped_rows,
    hot_set,
    open_log,
    packed_log,
    record,
    save_record,
    working_folder,
    zipf_hot_rows,
)
from contenders import OurPlacement, interleaved_runs

SHARE, BATCH_SIZE = 0.05, 32_768
FORMS = {"format 3": (False, False), "planes": (True, False), "planes, bf16": (True, True)}
"""Whether the order is in planes, and whether dense features are rounded."""


def with_whole_order(batches: BatchSet) -> BatchSet:
    """The same batches as format 3 has them, on pages that a GPU copies from."""
    orders = np.stack([np.asarray(batch.order) for batch in batches])
    arrays = dataclasses.replace(batches.arrays, order=OrderArrays((in_own_pages(orders),)))
    return BatchSet(arrays, batches.num_hot_batches)


def parts_of(batches: BatchSet, hot: Any, *, staged: bool, with_lists: bool, of_slices: bool, rounds: bool) -> Any:
    """Bytes an input of a mean full batch: in all, and those of the order and of dense features."""
    size, slots = batches.arrays.shape
    layout = InputLayout(
        batch_size=size, num_slots=slots, num_dense=batches.num_dense, num_groups=len(hot.layout.groups),
        with_cold_lists=with_lists, of_slices=of_slices, rounds_dense=rounds,
    )  # fmt: skip
    full = np.flatnonzero(np.asarray(batches.arrays.num_inputs) == size)
    table = layout.table(
        batches, full, slots=np.full(len(full), 0 if staged else -1), slot_rows=[0] * len(hot.layout.groups),
        rates=np.zeros(len(full), np.float32),
    )  # fmt: skip
    assert batches.arrays.order is not None
    order = sum(part[:1].nbytes for part in batches.arrays.order.parts)
    dense = size * batches.num_dense * (2 if rounds else 4)
    whole = 4 * table.headers.shape[1] + float(table.pieces[:, :, 2].sum(axis=1).mean())
    found = {"all": whole, "order": order, "dense": dense, "rest": whole - order - dense}
    return {name: size_of / size for name, size_of in found.items()}


def bytes_of_forms(packed: PackedDataset, hot: Any, world: int) -> Iterable[dict[str, Any]]:
    """Every form under `device` and `tiered`, on one GPU or on rank 0 of `world`, whose slices have B inputs."""
    slots = [len(hot.layout.group_slots(group)) for group in range(len(hot.layout.groups))]
    hot_rows = [group.num_hot_rows for group in hot.layout.groups]
    for placement in ("device", "tiered"):
        staged = placement == "tiered"
        for name, (planes, rounds) in FORMS.items():
            batches = packed.train
            if world > 1:
                owned: Owned = "batch" if staged else ""
                batches = RankBatches(0, world, slots, hot_rows, owned=owned).of(batches)
            if not planes:
                batches = with_whole_order(batches)
            found = parts_of(batches, hot, staged=staged, with_lists=not staged, of_slices=world > 1, rounds=rounds)
            said = ", ".join(f"{part} {size:.1f}" for part, size in found.items())
            print(f"{world} GPU{'s' * (world > 1)}, {placement}, {name}: {said} bytes an input", flush=True)
            yield {"gpus": world, "placement": placement, "form": name, "bytes_an_input": found}


def times_of_forms(packed: PackedDataset, hot: Any, placement: str, options: Any) -> list[dict[str, Any]]:
    """Steps of every form, in turns."""
    older = copy.copy(packed)
    older.train = with_whole_order(packed.train)
    contenders = {}
    for name, (planes, rounds) in FORMS.items():
        contenders[name] = OurPlacement(
            packed if planes else older, hot, placement, dim=options.dim, optimizer="sgd", device="cuda",
            precision="bf16",
        )  # fmt: skip
        contenders[name].embeddings.round_dense(rounds=rounds)
    samples = interleaved_runs(contenders, dict.fromkeys(contenders, options.steps), options.rounds)
    rows = []
    for name, seconds in samples.items():
        alone = {}
        for part in ("run_without_steps", "run_graph"):
            call = getattr(contenders[name], part)
            call(20)
            alone[part] = statistics.median(call(options.steps // 4) / (options.steps // 4) for _ in range(3))
        said = "; ".join(f"{part} {1e6 * each:.0f} us" for part, each in alone.items())
        print(
            f"{placement}, {name}: {BATCH_SIZE / statistics.median(seconds) / 1e6:.2f} M inputs/s, "
            f"{1e6 * statistics.median(seconds):.0f} us a step ({[round(1e6 * each) for each in seconds]}); {said}",
            flush=True,
        )  # fmt: skip
        rows.append({"placement": placement, "form": name, "seconds_a_step": seconds, "seconds_alone": alone})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", choices=("zipf", "criteo"), default="zipf")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--cap", type=int, default=max(KAGGLE_ROWS), help="rows of a table at most")
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--steps", type=int, default=0, help="0: bytes alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--placements", nargs="+", choices=("device", "tiered"), default=["device"])
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=RESULTS / "input_bytes.json")
    options = parser.parse_args()
    with working_folder(options.folder) as folder:
        log = open_log(options.log, folder, options.inputs, capped_rows(options.cap))
        # By the law where it is known: of a short log, the most accessed rows are all that occur.
        kind: dict[str, Any] = {"dim": options.dim, "mixed": True}
        if options.log == "zipf":
            sizes = [feature.num_embeddings for feature in log.features]
            kind |= {"order": "vocabulary", "num_hot": zipf_hot_rows(sizes, SHARE)}
        worlds = (1,) if options.steps else (1, 2)
        sets = {world: hot_set(log, SHARE, batch_size=world * BATCH_SIZE, **kind) for world in worlds}
        packs = {world: packed_log(log, hot, folder) for world, hot in sets.items()}
        if options.steps:
            rows = [row for each in options.placements for row in times_of_forms(packs[1], sets[1], each, options)]
        else:
            rows = [row for world in sets for row in bytes_of_forms(packs[world], sets[world], world)]
    save_record(options.out, record(torch_version=torch.__version__, log=options.log, rows=rows))


if __name__ == "__main__":
    main()
