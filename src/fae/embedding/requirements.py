"""What a placement will take on the device and on the host, before anything is allocated; refusal of what cannot fit.

Place in the flow: `fae train` asks between opening its inputs and making tables. Invariant: the bytes of rows, state
and staging are exactly those that `Embeddings.device_bytes` and the host tables come to (a test compares them).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fae.core.errors import BudgetError
from fae.core.memory import available_bytes
from fae.core.units import format_bytes
from fae.kernels.feed import FeedLayout
from fae.packing.dataset import BatchSet
from fae.popularity.layout import RowLayout
from fae.popularity.memory import row_bytes

FEED_DEPTH = 8
"""Feeds on their way to a GPU or in use there."""
_LOCATION_BYTES = 8
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
class Requirements:
    """Bytes.

    Attributes
    ----------
    device_rows
        On the device: rows, optimizer state and staging slots; what the budget bounds.
    device_feeds
        On a GPU beside them: batches on their way, and where staged rows are.
    host_rows
        In host memory: rows and state.
    host_buffers
        In host memory: the streaming pipeline's buffers (locked, with a GPU).
    """

    device_rows: int
    device_feeds: int
    host_rows: int
    host_buffers: int

    def describe(self, device: str) -> str:
        """One line for people."""
        parts = [f"{format_bytes(self.device_rows)} of rows, state and staging"]
        if self.device_feeds:
            parts.append(f"{format_bytes(self.device_feeds)} of batches on their way")
        host = [f"{format_bytes(self.host_rows)} of rows and state"] if self.host_rows else []
        if self.host_buffers:
            host.append(f"{format_bytes(self.host_buffers)} of buffers")
        on_host = f"; on the host {' and '.join(host)}" if host else ""
        return f"on {device} {' and '.join(parts)}{on_host}"


def requirements(
    placement: str, hot_set: _Hot, optimizer: str, splits: Sequence[BatchSet], *, on_gpu: bool
) -> Requirements:
    """What `placement` takes.

    Parameters
    ----------
    splits
        Whose batches will be streamed; their largest sizes the feeds.
    on_gpu
        Whether the device is a GPU, whose batches go through feeds.
    """
    layout, depth = hot_set.layout, hot_set.ring_depth
    groups = list(zip(layout.groups, hot_set.staging_rows, strict=True))
    sizes = [row_bytes(optimizer, group.embedding_dim) for group in layout.groups]
    hot = sum(size * group.num_hot_rows for size, (group, _) in zip(sizes, groups, strict=True))
    cold = sum(size * group.num_cold_rows for size, (group, _) in zip(sizes, groups, strict=True))
    slots = sum(size * depth * rows for size, (_, rows) in zip(sizes, groups, strict=True))
    locations = sum(_LOCATION_BYTES * depth * rows for _, rows in groups)
    feeds = 0
    if on_gpu and placement in ("tiered", "device", "paper"):
        feed = FeedLayout(
            batch_size=hot_set.batch_size, num_slots=layout.num_slots, num_dense=splits[0].num_dense,
            num_groups=len(groups), with_cold_lists=placement != "tiered",
        )  # fmt: skip
        feeds = 4 * FEED_DEPTH * max(feed.num_words(split) for split in splits if split.num_batches)
    if placement == "tiered":
        return Requirements(
            device_rows=hot + slots, device_feeds=feeds + (locations if on_gpu else 0), host_rows=cold,
            host_buffers=2 * slots + 2 * locations,
        )  # fmt: skip
    if placement == "device":
        return Requirements(device_rows=hot + cold, device_feeds=feeds, host_rows=0, host_buffers=0)
    if placement == "paper":
        return Requirements(device_rows=hot, device_feeds=feeds, host_rows=hot + cold, host_buffers=0)
    return Requirements(device_rows=0, device_feeds=0, host_rows=hot + cold, host_buffers=0)


def require_memory(
    needs: Requirements, placement: str, *, device_free: int | None, host_free: int | None = None
) -> None:
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
    on_host = needs.host_rows + needs.host_buffers
    if device_free is None:
        on_host += needs.device_rows
    else:
        largest = (device_free - needs.device_feeds - _SPARE) // _MIB
        if needs.device_rows > largest * _MIB:
            what = (
                f"placement = {placement!r} needs {format_bytes(needs.device_rows)} of GPU memory for rows, state and "
                f"staging, and {format_bytes(needs.device_feeds + _SPARE)} beside them; "
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
