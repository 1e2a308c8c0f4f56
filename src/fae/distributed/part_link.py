"""What moves bytes between some of the ranks: those of one host, or one of each host.

All ranks call it together, each for the part that it is in. Bytes and tensors of host memory go with those of all
ranks, since they are few; tensors of GPUs have collectives of the part alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from fae.distributed.link import Link

if TYPE_CHECKING:
    from torch import Tensor

    from fae.core.errors import RankError


class PartLink:
    """The collectives of one rank with some of the others, as `fae.distributed.link.Link` has them for all.

    Parameters
    ----------
    whole, rank
        Those of all ranks, and this one.
    members
        Ranks of every part, ascending; each rank is in one of them. All ranks make theirs together.
    backend
        What moves tensors of GPUs, as torch names it.
    """

    is_on_one_host = False

    def __init__(self, whole: Link, rank: int, members: Sequence[Sequence[int]], backend: str) -> None:
        self._whole, self._ranks, self._number = whole, [rank], 0
        for ranks in members:
            whole.add_tensor_group(ranks, backend)
            if rank in ranks:
                self._ranks, self._number = list(ranks), len(whole.further_groups) - 1

    @property
    def tensor_group(self) -> Any:
        """torch's group of the ranks of this part; None on CPUs."""
        return self._whole.further_groups[self._number]

    @property
    def waited_seconds(self) -> float:
        """As `fae.distributed.link.Link.waited_seconds`, of all collectives."""
        return self._whole.waited_seconds

    def await_others(self, are_there: Callable[[], bool], what: str) -> None:
        """As `fae.distributed.link.Link.await_others`."""
        self._whole.await_others(are_there, what)

    def gather_bytes(self, payload: bytes, what: str) -> list[bytes]:
        """The bytes of each rank of this part."""
        every = self._whole.gather_bytes(payload, what)
        return [every[rank] for rank in self._ranks]

    def gather_tensors(self, out: Tensor, tensor: Tensor, what: str) -> None:
        """Fill `out`, shape ``[ranks of this part, ...]``, with the tensor of each of them."""
        if tensor.is_cuda:
            dist.all_gather_into_tensor(out, tensor.contiguous(), group=self.tensor_group)
            return
        every = tensor.new_empty((self._whole.num_ranks, *tensor.shape))
        self._whole.gather_tensors(every, tensor, what)
        out.copy_(every[self._ranks].view(out.shape))

    def first_works(self, what: str) -> contextlib.AbstractContextManager[None]:
        """As `fae.distributed.link.Link.first_works`: it is the first rank of all that works."""
        return self._whole.first_works(what)

    def out_of_step(self, what: str) -> RankError:
        """As `fae.distributed.link.Link.out_of_step`."""
        return self._whole.out_of_step(what)

    def close(self, *, now: bool = False) -> None:
        """Nothing: the group of all ranks leaves."""
