"""What a placement will take on the device and on the host, before anything is allocated; refusal of what cannot fit.

Place in the flow: `fae train` asks between opening its inputs and making tables. Invariants: the bytes of rows, state
and staging are exactly those that `Embeddings.device_bytes` and the host tables come to; everything that stands beside
them while batches are streamed is counted and comes to no more than is said (tests compare both). Not counted: what a
step computes and drops again, for which a GPU must have `_SPARE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fae.artifacts.packed import BatchSet
from fae.artifacts.row_layout import RowLayout
from fae.core.errors import BudgetError
from fae.core.host_memory import available_bytes
from fae.core.optimizers import row_bytes, state_width
from fae.core.units import format_bytes
from fae.embedding.working_memory import (
    INPUT_RING_DEPTH,
    ROUNDED,
    cpu_lookups,
    gpu_lookups,
    hybrid_lookups,
    input_buffer_bytes,
    input_tables,
    locations,
    loose_batches,
    marks,
    pass_tables,
    pinned,
    transfer_buffers,
)
from fae.kernels.geometry import group_geometries
from fae.streaming.input_layout import InputLayout

_MIB = 2**20
_SPARE = 512 * _MIB
"""Of a GPU, for the model's activations, captured graphs and the libraries' work space."""


class _Hot(Protocol):
    batch_size: int
    ring_depth: int
    staging_rows: tuple[int, ...]

    @property
    def layout(self) -> RowLayout: ...


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Bytes.

    Attributes
    ----------
    device_rows
        On the device: rows, optimizer state and staging slots; what the budget bounds.
    device_inputs
        On a GPU beside them: batches on their way, and where staged rows are.
    device_work
        On the device: pooled rows and their gradients, partial sums; dense weights with gradients and state.
    host_rows
        In host memory: rows and state.
    host_buffers
        In host memory: the streaming pipeline's buffers; with a GPU, locked, and with them those that batches
        may have to go through (they are not made where files can be copied from directly).
    host_work
        In host memory: tables of a stream; lookups and dense weights where the host does them.
    """

    device_rows: int
    device_inputs: int
    device_work: int = 0
    host_rows: int
    host_buffers: int
    host_work: int = 0

    @property
    def device_beside(self) -> int:
        """On the device, beside rows, state and staging."""
        return self.device_inputs + self.device_work

    @property
    def on_host(self) -> int:
        """All of it in host memory, where the device is another."""
        return self.host_rows + self.host_buffers + self.host_work

    def describe(self, device: str) -> str:
        """One line for people."""
        parts = _listed(
            (self.device_rows, "rows, state and staging"), (self.device_inputs, "batches on their way"),
            (self.device_work, "pooled rows, gradients and dense weights"),
        )  # fmt: skip
        host = _listed(
            (self.host_rows, "rows and state"), (self.host_buffers, "buffers"), (self.host_work, "tables and the like")
        )
        on_host = f"; on the host {host}" if host else ""
        return f"on {device} {parts or 'no rows'}{on_host}"


def _listed(*parts: tuple[int, str]) -> str:
    """Whatever is there of it, in words: "3 GiB of a, 2 MiB of b and 1 KiB of c"."""
    words = [f"{format_bytes(size)} of {what}" for size, what in parts if size]
    return " and ".join([part for part in (", ".join(words[:-1]), *words[-1:]) if part])


def plan_memory(
    placement: str,
    hot_set: _Hot,
    optimizer: str,
    splits: Sequence[BatchSet],
    *,
    on_gpu: bool,
    dense_bytes: int = 0,
) -> MemoryPlan:
    """What `placement` takes.

    Parameters
    ----------
    splits
        Whose batches will be streamed; their largest sizes the feeds.
    on_gpu
        Whether the device is a GPU, whose batches go through feeds.
    dense_bytes
        Of the dense weights, their gradients and optimizer state: `fae.training.dense.dense_bytes`.
    """
    layout, batch_size, num_dense = hot_set.layout, hot_set.batch_size, splits[0].num_dense
    groups = list(zip(layout.groups, hot_set.staging_rows, strict=True))
    geometries = group_geometries(
        [feature.length for feature in layout.features], [feature.pooling for feature in layout.features],
        layout.embedding_dims,
    )  # fmt: skip
    floats = [(group.embedding_dim, state_width(optimizer, group.embedding_dim)) for group in layout.groups]
    sizes = [row_bytes(optimizer, group.embedding_dim) for group in layout.groups]
    hot = sum(size * group.num_hot_rows for size, (group, _) in zip(sizes, groups, strict=True))
    cold = sum(size * group.num_cold_rows for size, (group, _) in zip(sizes, groups, strict=True))
    slots = sum(size * hot_set.ring_depth * rows for size, (_, rows) in zip(sizes, groups, strict=True))
    most_batches = max(split.num_batches for split in splits)
    on_cpu, loose = cpu_lookups(geometries, batch_size), loose_batches(batch_size, num_dense)

    if placement == "cpu" or (placement == "hybrid" and not on_gpu):
        return MemoryPlan(
            device_rows=0, device_inputs=0, host_rows=hot + cold, host_buffers=0, host_work=on_cpu + loose + dense_bytes
        )
    hybrid_on_gpu, hybrid_on_host = hybrid_lookups(geometries, batch_size) if on_gpu else (0, on_cpu)
    if placement == "hybrid":
        return MemoryPlan(
            device_rows=0, device_inputs=0, device_work=hybrid_on_gpu + loose + dense_bytes, host_rows=hot + cold,
            host_buffers=0, host_work=hybrid_on_host,
        )  # fmt: skip

    feeds = host_feeds = host_work = 0
    device_work = dense_bytes + (on_cpu + loose if not on_gpu else 0)
    if on_gpu:
        feed = InputLayout(
            batch_size=batch_size, num_slots=layout.num_slots, num_dense=num_dense, num_groups=len(groups),
            with_cold_lists=placement != "tiered",
        )  # fmt: skip
        buffer = input_buffer_bytes(feed, splits)
        feeds, host_feeds = INPUT_RING_DEPTH * buffer, INPUT_RING_DEPTH * pinned(buffer)
        device_work += gpu_lookups(geometries, batch_size, splits) + ROUNDED * (INPUT_RING_DEPTH + 3 * len(groups))
        host_work += input_tables(len(groups), most_batches)
    if placement == "tiered":
        host_work += pass_tables(hot_set, most_batches) + marks(sum(g.num_cold_rows for g in layout.groups))
        return MemoryPlan(
            device_rows=hot + slots, device_inputs=feeds + (locations(hot_set) if on_gpu else 0),
            device_work=device_work, host_rows=cold,
            host_buffers=host_feeds + transfer_buffers(hot_set, floats, on_gpu=on_gpu), host_work=host_work,
        )  # fmt: skip
    if placement == "device":
        return MemoryPlan(
            device_rows=hot + cold, device_inputs=feeds, device_work=device_work, host_rows=0, host_buffers=host_feeds,
            host_work=host_work,
        )  # fmt: skip
    return MemoryPlan(  # paper
        device_rows=hot, device_inputs=feeds, device_work=device_work + hybrid_on_gpu, host_rows=hot + cold,
        host_buffers=host_feeds, host_work=host_work + hybrid_on_host,
    )  # fmt: skip


def require_memory(needs: MemoryPlan, placement: str, *, device_free: int | None, host_free: int | None = None) -> None:
    """Refuse what cannot fit.

    Parameters
    ----------
    device_free
        Bytes that the GPU can still give; None if the device is the host itself.
    host_free
        Bytes that the host can still give; by default what the system says, and no check where it says nothing.

    Raises
    ------
    BudgetError
        With the largest budget that would fit.
    """
    host_free = available_bytes() if host_free is None else host_free
    on_host = needs.on_host
    if device_free is None:
        on_host += needs.device_rows + needs.device_beside
    else:
        largest = (device_free - needs.device_beside - _SPARE) // _MIB
        if needs.device_rows > largest * _MIB:
            what = (
                f"placement = {placement!r} needs {format_bytes(needs.device_rows)} of GPU memory for rows, state and "
                f"staging, and {format_bytes(needs.device_beside + _SPARE)} beside them; "
                f"{format_bytes(device_free)} are free"
            )
            if largest <= 0:
                raise BudgetError(f"{what}; free GPU memory, or choose a smaller [train] batch_size")
            raise BudgetError(
                f"{what}; the largest budget that fits is {largest}MiB: run again with "
                f"--set train.placement=tiered --budget {largest}MiB"
            )
    if host_free and on_host > host_free:
        raise BudgetError(
            f"placement = {placement!r} needs {format_bytes(on_host)} of host memory for rows, state and buffers; "
            f"{format_bytes(host_free)} are available; give rows to a GPU with a larger --budget, choose a smaller "
            "[model] embedding_dim or an [train] optimizer with less state"
        )
