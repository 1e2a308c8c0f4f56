"""What a step of one of several ranks costs on a GPU besides the wire: rank 0 alone, on one GPU.

    python benchmarks/studies/rank_alone.py [--ranks 1 2 4] [--dims 16 64] [--out FILE]

Rank 0 of W trains its slices of W times 32,768 inputs (DLRM over Criteo Kaggle's tables, bf16, SGD, as
``benchmarks/gpu_step.py``). The other ranks are not there: what it reads as their sums are buffers of its own GPU, and
no barrier waits. So it has all kernels of a step of W ranks, and neither NVLink nor barriers: no scaling of real GPUs
can be better than these ratios. Placements take turns. Writes benchmarks/results/rank_alone.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import fae  # noqa: F401 isort: skip  # before torch: it sets how long torch's threads spin

import torch

from fae.distributed.group import Group
from fae.distributed.peers import host_parts, peer_buffers
from fae.embedding.ranks import gpu_rank_rows

from common import KAGGLE_ROWS, RESULTS, capped_rows, hot_set, open_log, packed_log, record, save_record, working_folder
from contenders import OurPlacement

SHARE = 0.05


class OwnCopies:
    """A buffer of W ranks, all of them on this GPU; those of others hold zeros."""

    def __init__(self, group: Group, size: int, device: torch.device, **_: Any) -> None:
        parts = torch.zeros((group.world, peer_buffers.aligned_size(size)), device=device)
        self.own = parts[0]
        self.pointers = torch.tensor([part.data_ptr() for part in parts], device=device)

    def send(self) -> None:
        """Nothing."""

    def await_all(self) -> None:
        """Nothing."""


def measure(options: Any, dim: int, folder: Path) -> list[dict[str, Any]]:
    """Microseconds of a step of each placement, and of its captured graph alone, for every number of ranks."""
    log = open_log("zipf", folder, options.inputs, capped_rows(options.cap))
    device, contenders = torch.device("cuda"), {}
    for world in options.ranks:
        size = world * options.batch_size
        hot = hot_set(log, SHARE, dim=dim, batch_size=size, mixed=True)
        packed = packed_log(log, hot, folder)
        group = Group(world=world, hosts=("",) * world, device=str(device)) if world > 1 else None
        for placement in ("device", "tiered"):
            contender = OurPlacement(
                packed, hot, placement, dim=dim, optimizer="sgd", device=str(device), group=group
            )  # fmt: skip
            contender.run(60)
            contenders[placement, world] = contender
    steps: dict[Any, list[float]] = {key: [] for key in contenders}
    graphs: dict[Any, list[float]] = {key: [] for key in contenders}
    for _ in range(options.rounds):
        for key, contender in contenders.items():
            steps[key].append(1e6 * contender.run(options.steps) / options.steps)
            graphs[key].append(1e6 * contender.run_graph(options.steps) / options.steps)
    rows = []
    for (placement, world), seconds in steps.items():
        step, graph = statistics.median(seconds), statistics.median(graphs[placement, world])
        best = world * statistics.median(steps[placement, options.ranks[0]]) / step
        print(
            f"dim {dim} {placement} of {world}: {step:.0f} us a step, {graph:.0f} the graph alone; at best {best:.2f}x"
        )
        found = {"step_us": seconds, "graph_us": graphs[placement, world], "at_best": best}
        rows.append({"dim": dim, "placement": placement, "ranks": world, **found})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--dims", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--batch-size", type=int, default=32768, help="inputs of a rank")
    parser.add_argument("--inputs", type=int, default=600_000)
    parser.add_argument("--cap", type=int, default=max(KAGGLE_ROWS), help="rows of a table at most")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=RESULTS / "rank_alone.json")
    options = parser.parse_args()
    for module in (peer_buffers, host_parts, gpu_rank_rows):
        module.peer_buffer = OwnCopies  # type: ignore[attr-defined]
    rows: list[dict[str, Any]] = []
    with working_folder(options.folder) as folder:
        for dim in options.dims:
            rows += measure(options, dim, folder)
            torch.cuda.empty_cache()
            save_record(options.out, record(torch_version=torch.__version__, batch_size=options.batch_size, rows=rows))


if __name__ == "__main__":
    main()
