"""What moves bytes between the ranks of a group: torch's collectives, with a limit of time and an end for each.

JSON goes over Gloo, tensors of GPUs over NCCL, and those of host memory over a second group of Gloo, so that none is
taken for another where ranks are out of step. A wait is cut into short ones: signals are heard meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore  # type: ignore[attr-defined]

from fae.core.errors import RankError
from fae.distributed.ends import CommonFault, LostRank
from fae.distributed.meeting import RankMeeting, RankWatch

if TYPE_CHECKING:
    from torch import Tensor

_LOOK = timedelta(seconds=0.2)
_ANSWER_SECONDS = 4.0
"""How long a rank that waits in vain waits for what the others say of themselves: they look once a second."""
_TAKE_DOWN_SECONDS = 10.0
"""How long the end of NCCL's connections is waited for: a graph that is left would hold it for ever."""
_MARGIN = timedelta(seconds=120)
_LONGEST_PAUSE = 0.001
"""Seconds between two looks at memory that another rank of the host writes."""


class Link:
    """The collectives of one rank.

    Parameters
    ----------
    meeting
        Where all ranks are.
    hosts
        The host of each rank.
    device
        What tensors of this rank are on.
    timeout
        Seconds that a rank waits for the others in one collective.
    on_loss
        As `fae.distributed.meeting.RankWatch` calls it; None where ranks of GPUs have no others to watch.

    Attributes
    ----------
    waited_seconds
        Seconds that this rank has been in collectives: it waits for the others, and bytes are moved.
    further_groups
        torch's groups of some of the ranks, for tensors on GPUs; None on CPUs.
    """

    def __init__(
        self,
        meeting: RankMeeting,
        device: torch.device,
        timeout: float,
        on_loss: Callable[[str], None] | None = None,
    ) -> None:
        self._meeting, self._place, self._store, self._timeout = meeting, meeting.place, meeting.store, timeout
        limit = timedelta(seconds=timeout) + _MARGIN
        self._waits_on_device = device.type == "cuda"
        try:
            dist.init_process_group(
                "gloo", store=PrefixStore("group", self._store.inner), rank=self._place.rank,
                world_size=self._place.world, timeout=limit,
            )  # fmt: skip
            self._control: Any = dist.group.WORLD
            self._host_tensors: Any = dist.new_group(backend="gloo", timeout=limit)
            self._tensors = self._host_tensors
            if device.type == "cuda":
                self._tensors = dist.new_group(backend="nccl", timeout=limit)
        except RuntimeError as error:
            raise LostRank(f"ranks cannot be connected: {_line(error)}") from error
        self.further_groups: list[Any] = []
        self._watch = RankWatch(meeting, on_loss) if on_loss is not None and self._waits_on_device else None
        self._number = self._works = 0
        self.waited_seconds = 0.0
        self._header = torch.zeros(3, dtype=torch.int64)
        self._headers = torch.zeros(self._place.world, 3, dtype=torch.int64)

    @property
    def num_ranks(self) -> int:
        """How many ranks there are."""
        return self._place.world

    @property
    def tensor_group(self) -> Any:
        """torch's group of the collectives of tensors on the device of the ranks."""
        return self._tensors

    def add_tensor_group(self, ranks: Sequence[int], backend: str) -> None:
        """Add a group of some ranks to `further_groups`; all ranks call it, those that are not in it, too.

        Parameters
        ----------
        backend
            What moves tensors of GPUs, as torch names it; on CPUs there is no such group.
        """
        limit, group = timedelta(seconds=self._timeout) + _MARGIN, None
        if self._waits_on_device:
            try:
                group = dist.new_group(list(ranks), backend=backend, timeout=limit)
            except RuntimeError as error:
                raise LostRank(f"ranks cannot be connected: {_line(error)}") from error
        self.further_groups.append(group)

    @property
    def is_on_one_host(self) -> bool:
        """Whether all ranks are processes of this host, which see one another."""
        neighbours = self._meeting.neighbours()
        return len(neighbours) == self._place.world - 1 and all(neighbours.values())

    def await_others(self, are_there: Callable[[], bool], what: str) -> None:
        """Wait for what ranks of this host write where this one reads it.

        Parameters
        ----------
        are_there
            Looks whether they have.

        Raises
        ------
        LostRank
            If one of them is gone, has failed, or asks who is there.
        RankError
            If they have not in time.
        """
        began = looked = time.monotonic()
        try:
            while not are_there():
                now = time.monotonic()
                time.sleep(min(_LONGEST_PAUSE, (now - began) / 8))  # signals are heard
                if now - looked < _LOOK.total_seconds():
                    continue
                looked = now
                self._look_around(what)
                if now - began > self._timeout:
                    self._call(what)
        finally:
            self.waited_seconds += time.monotonic() - began

    def gather_bytes(self, payload: bytes, what: str) -> list[bytes]:
        """The bytes of each rank, by rank.

        Raises
        ------
        CommonFault
            If ranks are at different places.
        """
        self._number += 1
        self._header[:] = torch.tensor([self._number, zlib.crc32(what.encode()), len(payload)])
        self._gather(self._headers, self._header, self._control, what)
        places, lengths = self._headers[:, :2].tolist(), self._headers[:, 2].tolist()
        most = max(lengths)
        if most == 0 and all(place == places[0] for place in places):
            return [b""] * self._place.world
        data = payload.ljust(most, b"\0")
        if any(place != places[0] for place in places):
            raise self.out_of_step(what)
        buffer = torch.empty(self._place.world, most, dtype=torch.uint8)
        self._gather(buffer, torch.frombuffer(bytearray(data), dtype=torch.uint8), self._control, what)
        return [bytes(row[:length].numpy()) for row, length in zip(buffer, lengths, strict=True)]

    def gather_tensors(self, out: Tensor, tensor: Tensor, what: str) -> None:
        """Fill `out`, shape ``[world, ...]``, with the tensor of each rank; both on the GPU, or both in host memory."""
        if tensor.is_cuda:  # the host goes further, and NCCL has the limit
            dist.all_gather_into_tensor(out, tensor.contiguous(), group=self._tensors)
        else:
            self._gather(out, tensor.contiguous(), self._host_tensors, what)

    @contextlib.contextmanager
    def first_works(self, what: str) -> Iterator[None]:
        """As `fae.distributed.group.Group.first_works`."""
        self._works += 1
        key = f"worked/{self._works}"
        if self._place.rank == 0:
            with self._meeting.beating():
                yield
            self._meeting.say(key)
        else:
            yield
            self._meeting.await_first(key, lambda: self._look_around(what))

    def close(self, *, now: bool = False) -> None:
        """Leave the group; `now` without an end of what is still under way, which would be waited for otherwise."""
        if self._watch is not None:
            self._watch.stop()
        if now or not dist.is_initialized() or not self._taken_down():
            for group in (
                self._control, self._host_tensors, self._tensors, *filter(None, self.further_groups)
            ):  # fmt: skip
                ctypes.pythonapi.Py_IncRef(
                    ctypes.py_object(group)
                )  # so it is never taken down, at Python's end neither
        else:
            # Freed here and not at Python's end, where threads of Gloo that free what they have would end the process.
            self._control = self._host_tensors = self._tensors = None
            self.further_groups.clear()

    def _taken_down(self) -> bool:
        """Take the groups down; returns whether that has ended.

        NCCL waits until all graphs are gone that have captured one of its operations.
        """
        if not self._waits_on_device:
            dist.destroy_process_group()
            return True
        gc.collect()  # graphs in cycles
        thread = threading.Thread(target=dist.destroy_process_group, daemon=True)
        thread.start()
        thread.join(_TAKE_DOWN_SECONDS)
        return not thread.is_alive()

    def _gather(self, out: Tensor, tensor: Tensor, group: Any, what: str) -> None:
        rows = list(out.unbind(0))
        self._wait(lambda: dist.all_gather(rows, tensor, group=group, async_op=True), what)

    def _wait(self, start: Callable[[], Any], what: str) -> None:
        began = time.monotonic()
        try:
            self._wait_from(began, start, what)
        finally:
            self.waited_seconds += time.monotonic() - began

    def _wait_from(self, began: float, start: Callable[[], Any], what: str) -> None:
        looked, has_ended = began, False
        try:
            work = start()
        except RuntimeError as error:
            raise LostRank(f"the others are gone at {what}: {_line(error)}") from error
        while True:
            try:
                work.wait(_LOOK)
                return
            except RuntimeError as error:  # also where only this short wait is over
                if has_ended:
                    raise LostRank(f"a rank is gone at {what}: {_line(error)}") from error
                has_ended = work.is_completed()
            now = time.monotonic()
            if has_ended or now - looked < 1.0:
                continue
            looked = now
            self._answer_call(what)
            if now - began > self._timeout:
                self._call(what)

    def _look_around(self, what: str) -> None:
        """End a wait where another rank is gone, or has failed, or asks who is there."""
        self._answer_call(what)
        gone = [rank for rank, runs in self._meeting.neighbours().items() if not runs]
        if gone or self._meeting.has_failure():
            raise LostRank(f"rank {gone[0]} is gone at {what}" if gone else "another rank has failed")

    def _answer_call(self, what: str) -> None:
        """Where another rank has waited too long and asks who is there: say so, and leave the rest to it."""
        try:
            if not self._store.check(["call"]):
                return
            self._store.put(f"here/{self._place.rank}", what)
            end = time.monotonic() + _ANSWER_SECONDS + 1.0
            while time.monotonic() < end and not self._store.check(["called"]):
                time.sleep(0.05)  # this one may have the store, and the first end counts
        except RuntimeError as error:
            raise LostRank(f"rank 0 is gone: {_line(error)}") from error
        raise LostRank("another rank has waited too long")

    def _call(self, what: str) -> None:
        """Ask who is there, and say who is not."""
        place = self._place
        try:
            if self._store.add("calls", 1) > 1:
                self._answer_call(what)
                return
            self._store.put("call", "1")
            end = time.monotonic() + _ANSWER_SECONDS
            keys = {rank: f"here/{rank}" for rank in range(place.world) if rank != place.rank}
            while time.monotonic() < end and not self._store.check(list(keys.values())):
                time.sleep(0.1)
            here = {rank: self._store.text(key) for rank, key in keys.items() if self._store.check([key])}
            self._store.put("called", "1")
        except RuntimeError as error:
            raise RankError(f"rank 0 does not answer: {_line(error)}; the same command continues") from error
        late = [str(rank) for rank in keys if rank not in here]
        elsewhere = [f"rank {rank} at {other}" for rank, other in here.items() if other != what]
        if late:
            what_is_late = f"rank{'s' * (len(late) > 1)} {', '.join(late)} did not come to {what}"
        else:
            what_is_late = f"ranks are out of step: rank {place.rank} at {what}, {', '.join(elsewhere)}"
        raise RankError(
            f"{what_is_late} within {self._timeout:.0f} s, in which rank {place.rank} has waited; all ranks end, and "
            "the same command continues from the last checkpoint"
        )

    def out_of_step(self, what: str) -> RankError:
        """The error of ranks of which one has left its work before the others; each says where it is."""
        found: list[Any] = []
        try:
            place = self._place
            self._store.put(f"step/{place.rank}", what)
            keys = [f"step/{rank}" for rank in range(place.world)]
            end = time.monotonic() + _ANSWER_SECONDS
            while time.monotonic() < end and not self._store.check(keys):
                time.sleep(0.02)
            found = [f"rank {rank} at {self._store.text(key)}" for rank, key in enumerate(keys)]
        except RuntimeError as error:
            return LostRank(f"rank 0 is gone: {_line(error)}")
        return CommonFault(f"ranks are out of step: {', '.join(found)}; this is a defect, please report it")


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:200]
