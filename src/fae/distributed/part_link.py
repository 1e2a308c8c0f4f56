"""What moves bytes between some of the ranks: those of one host, or one of each host.

All ranks call it together, each for the part that it is in. Bytes and tensors of host memory go with those of all
ranks, since they are few; tensors of GPUs have collectives of the part alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

if TYPE_CHECKING:
    from torch import Tensor

    from fae.core.errors import RankError
    from fae.distributed.link import Link


class PartLink:
    """The collectives of one rank with some of the others, as `fae.distributed.link.Link` has them for all.

    Parameters
    ----------
    whole
        Those of all ranks.
    ranks
        The ranks of this part, ascending.
    tensor_group
        torch's group of them; None on CPUs.
    """

    is_on_one_host = False

    def __init__(self, whole: Link, ranks: Sequence[int], tensor_group: Any) -> None:
        self._whole, self._ranks, self.tensor_group = whole, list(ranks), tensor_group

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
