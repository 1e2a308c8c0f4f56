"""The group of ranks that train together, and what they do together. One process is a group of one, without torch.

Collectives move bytes and never add: sums are taken here, in one tree (`fae.distributed.tree_sum`). Each has a limit of
time (`fae.distributed.link`).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from fae.core.interrupts import Interrupted, is_interrupted, raise_interrupt, take_interrupt
from fae.core.printable import brief
from fae.core.whole_files import json_values
from fae.distributed.ends import CommonFault
from fae.distributed.slice_plan import REPRODUCIBLE_SLICES, SlicePlan
from fae.distributed.tree_sum import tree_sum

Wire = Literal["peer", "hosts", "gather"]

if TYPE_CHECKING:
    from torch import Tensor

    from fae.distributed.link import Link
    from fae.distributed.part_link import PartLink
    from fae.distributed.peers.host_meeting import HostMeeting


@dataclass(frozen=True, kw_only=True)
class Group:
    """The ranks of a training, as one of them sees them; `RankProcess.join` makes one of several.

    Every method but `close` must be called by all ranks, in the same order. `what` names the place in words: it is what
    people read when a rank does not come to it.

    Attributes
    ----------
    rank, world
        The number of this rank, from 0, and how many there are.
    local_rank
        Its number among the ranks of its host.
    hosts
        Host of each rank.
    device
        What this rank trains on, as torch names it.
    link
        What moves bytes between ranks; None where there is one.
    wire
        How ranks reach one another's buffers (`fae.distributed.peers.peer_buffers`): ``peer`` reads them in place,
        ``hosts`` reads those of its host in place and has a collective copy the sums of whole hosts, ``gather`` has one
        copy all of them, as None does, which is that of one rank.
    why_gathered
        Why GPUs do not read the buffers of all others in place; empty where they do, and on CPUs.
    parts
        The smaller groups that this rank is in where `wire` is ``hosts``.
    meeting
        How ranks meet that share the memory of one host; None where they do not, and for one rank.
    reproducible
        Whether what they train must not depend on how many they are: then every batch has 8 slices.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    hosts: tuple[str, ...] = ("",)
    device: str = "cpu"
    link: Link | PartLink | None = field(default=None, repr=False, compare=False)
    wire: Wire | None = None
    why_gathered: str = ""
    parts: HostParts | None = field(default=None, repr=False, compare=False)
    meeting: HostMeeting | None = field(default=None, repr=False, compare=False)
    reproducible: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which alone talks and writes."""
        return self.rank == 0

    @property
    def slices(self) -> SlicePlan:
        """The slices of a batch, and those of this rank."""
        num_slices = REPRODUCIBLE_SLICES if self.reproducible else self.world
        num_hosts = 1 if self.parts is None else self.parts.counterparts.world
        return SlicePlan(num_slices=num_slices, rank=self.rank, world=self.world, num_hosts=num_hosts)

    @property
    def neighbours(self) -> Group:
        """The ranks that read one another's memory, where any do: all of them, or those of one host.

        What such a part exchanges as JSON, and its barriers, are collectives of all ranks.
        """
        return self if self.parts is None else self.parts.neighbours

    @property
    def waited_seconds(self) -> float | None:
        """Seconds of this rank in collectives; None where the device waits for other ranks, unknown to the host."""
        if self.link is None:
            return 0.0
        return self.link.waited_seconds if self.device == "cpu" else None

    def gather_json(self, value: Any, what: str) -> list[Any]:
        """The JSON value of each rank, by rank."""
        return [json.loads(text) for text in self._gather(_to_bytes(value), what)]

    def broadcast_json(self, value: Any, what: str) -> Any:
        """The JSON value of rank 0; what others pass is ignored."""
        return json.loads(self._gather(_to_bytes(value) if self.is_first else b"", what)[0])

    def barrier(self, what: str) -> None:
        """Wait until all ranks are here."""
        self._gather(b"", what)

    @contextlib.contextmanager
    def first_works(self, what: str) -> Iterator[None]:
        """Let rank 0 work alone in the block, for as long as it takes; the others wait behind theirs, which is empty.

        They wait for as long as rank 0 is heard of, and not the limited time of a collective: use it for whatever may
        take minutes, such as a checkpoint. It begins where ranks are together, behind a collective.

        Raises
        ------
        LostRank
            On another rank, if rank 0 is gone or is no longer heard of, or yet another one is gone.
        """
        if self.link is None:
            yield
            return
        with self.link.first_works(what):
            yield

    def any(self, flag: bool, what: str) -> bool:
        """Whether any rank has set its flag: how ranks stop after the same batch."""
        return b"1" in self._gather(b"1" if flag else b"", what)  # nothing is sent where no flag is set

    def raise_interrupt(self, what: str) -> None:
        """Raise, on all ranks, the signal that any of them has received; see `fae.core.interrupts.raise_interrupt`.

        Raises
        ------
        Interrupted
            That signal: of several, the one with the largest number.
        """
        if self.link is None:
            raise_interrupt()
        elif self.any(is_interrupted(), what):
            number = max(self.gather_json(take_interrupt(), f"the signal at {what}"))
            raise Interrupted(number)

    def agree(self, value: Any, what: str) -> None:
        """Refuse to continue where JSON values of ranks differ, such as recipes, data or versions.

        Raises
        ------
        CommonFault
            On every rank, with the first value that differs and both of its forms.
        """
        found = self.gather_json(value, what)
        for rank, other in enumerate(found):
            difference = _first_difference(found[0], other)
            if difference:
                name, first, second = difference
                at, of_first, of_second = f" in {name}" if name else "", brief(first), brief(second)
                raise CommonFault(
                    f"ranks do not have the same {what}: they differ{at}, which is {of_first} on rank 0 "
                    f"({self.hosts[0]}) and {of_second} on rank {rank} ({self.hosts[rank]}); start all with the same"
                )

    def all_gather(self, tensor: Tensor, what: str, out: Tensor | None = None) -> Tensor:
        """The tensor of each rank, which has the same shape on all.

        Parameters
        ----------
        tensor
            Shape ``[...]``, on `device` or in host memory.
        out
            Contiguous, shape ``[world, ...]``, to be used again and again; None makes a new one. A group of one leaves
            it alone.

        Returns
        -------
        Tensor
            Shape ``[world, ...]``: `out`, or a view of `tensor` in a group of one.
        """
        if self.link is None:
            return tensor.unsqueeze(0)
        if out is None:
            out = tensor.new_empty((self.world, *tensor.shape))
        self.link.gather_tensors(out, tensor, what)
        return out

    def tree_sum(self, tensor: Tensor, what: str, out: Tensor | None = None) -> Tensor:
        """The sum over ranks, in one tree: the same bytes on every rank, and by the number of ranks alone.

        Parameters
        ----------
        tensor, out
            As for `all_gather`.

        Returns
        -------
        Tensor
            A new tensor; `tensor` itself in a group of one.
        """
        return tree_sum(self.all_gather(tensor, what, out).unbind(0))

    def close(self, *, now: bool = False) -> None:
        """Leave: the other ranks then see this one as gone. With `now` nothing that is under way is waited for."""
        if self.link is not None:
            self.link.close(now=now)

    def __enter__(self) -> Group:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave together where the block has ended well, and at once where it has not."""
        try:
            if error is None:
                self.barrier("the end")
        except BaseException:
            self.close(now=True)
            raise
        self.close(now=error is not None)

    def _gather(self, payload: bytes, what: str) -> list[bytes]:
        return [payload] if self.link is None else self.link.gather_bytes(payload, what)


@dataclass(frozen=True, kw_only=True)
class HostParts:
    """What a rank is in beside the group of all, where hosts have several ranks each.

    Attributes
    ----------
    neighbours
        The ranks of its host.
    counterparts
        The rank of each host that has the number there that this one has on its own.
    """

    neighbours: Group
    counterparts: Group


def _to_bytes(value: Any) -> bytes:
    return json.dumps(json_values(value), sort_keys=True, allow_nan=False).encode()


def _first_difference(first: Any, second: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """Dotted name of the first place at which JSON values differ, and what they have there; None where they are equal.

    >>> _first_difference({"train": {"seed": 1, "epochs": 2}}, {"train": {"seed": 3, "epochs": 2}})
    ('train.seed', 1, 3)
    """
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for key in sorted(first.keys() | second.keys()):
            inner = f"{name}.{key}" if name else key
            if key not in first or key not in second:
                return inner, first.get(key, "not there"), second.get(key, "not there")
            if found := _first_difference(first[key], second[key], inner):
                return found
        return None
    return None if json.dumps(first) == json.dumps(second) else (name, first, second)
