"""What a placement will take on the device and on the host, before anything is allocated; what cannot fit is refused.

The bytes of rows, state and staging are exactly those that are allocated. What lies beside them while batches are
streamed is an upper bound (tests compare both). Not counted: what a step computes and drops again; a GPU must have
`SPARE_BYTES` free for it. The arithmetic of a placement is beside the placement: ``plan_memory`` of its class.
"""

from __future__ import annotations

from dataclasses import dataclass

from fae.core.errors import BudgetError
from fae.core.host_memory import available_bytes
from fae.core.units import format_bytes

_MIB = 2**20
SPARE_BYTES = 512 * _MIB
"""Bytes of a GPU for the model's activations, captured graphs and the libraries' work space."""


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Bytes that a placement takes.

    Attributes
    ----------
    device_rows
        On the device: rows, optimizer state and staging slots; what the budget bounds.
    device_inputs
        On a GPU beside them: batches on their way, and the list of where staged rows are.
    device_work
        On the device: pooled rows and their gradients, partial sums; dense weights with gradients and state.
    host_rows
        In host memory: rows and state.
    host_buffers
        In host memory: buffers of the streaming pipeline. With a GPU they are page-locked, and the buffers that batches
        may have to go through are counted, too (they are not made where files can be copied from directly).
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
        """Bytes on the device beside rows, state and staging."""
        return self.device_inputs + self.device_work

    @property
    def on_host(self) -> int:
        """All bytes in host memory, where the device is a GPU."""
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
    """The parts that are not 0, in words: "3 GiB of a, 2 MiB of b and 1 KiB of c"."""
    words = [f"{format_bytes(size)} of {what}" for size, what in parts if size]
    return " and ".join([part for part in (", ".join(words[:-1]), *words[-1:]) if part])


def largest_budget(needs: MemoryPlan, device_free: int) -> int:
    """Bytes, whole MiB, that are left for rows, state and staging on a GPU with `device_free` bytes; may be below 0."""
    return (device_free - needs.device_beside - SPARE_BYTES) // _MIB * _MIB


def require_memory(
    needs: MemoryPlan,
    placement: str,
    *,
    device_free: int | None,
    host_free: int | None = None,
    ranks: int = 1,
    gpu: str = "the GPU",
) -> None:
    """Raise `BudgetError` for what cannot fit.

    Parameters
    ----------
    device_free
        Bytes that the GPU can still give; None if the device is the host itself.
    host_free
        Bytes that the host can still give; by default as the system reports, unchecked where it reports nothing.
    ranks
        How many processes of this host take that memory, each for itself.
    gpu
        The GPU in words.

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
        largest = largest_budget(needs, device_free) // _MIB
        if needs.device_rows > largest * _MIB:
            what = (
                f"placement = {placement!r} needs {format_bytes(needs.device_rows)} of GPU memory for rows, state and "
                f"staging, and {format_bytes(needs.device_beside + SPARE_BYTES)} beside them; "
                f"{format_bytes(device_free)} are free on {gpu}"
            )
            if largest <= 0:
                raise BudgetError(f"{what}; free GPU memory, or choose a smaller [train] batch_size")
            raise BudgetError(
                f"{what}; the largest budget that fits is {largest}MiB: run again with "
                f"--set train.placement=tiered --budget {largest}MiB"
            )
    if host_free and ranks * on_host > host_free:
        raise BudgetError(
            f"placement = {placement!r} needs {format_bytes(on_host)} of host memory for rows, state and buffers"
            f"{times_ranks(on_host, ranks)}; {format_bytes(host_free)} are available; "
            f"{'start fewer ranks' if ranks > 1 else 'give rows to a GPU with a larger --budget'}, choose a smaller "
            "[model] embedding_dim or an [train] optimizer with less state"
        )


def times_ranks(size: int, ranks: int) -> str:
    """What bytes of one rank are in all, in words behind them; empty for one rank.

    >>> times_ranks(2**30, 4)
    ' on each of 4 ranks of this host, 4.0 GiB in all'
    """
    return f" on each of {ranks} ranks of this host, {format_bytes(ranks * size)} in all" if ranks > 1 else ""
