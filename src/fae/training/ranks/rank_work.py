"""What each rank has trained, received of the others and waited for them, for the record of a training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from fae.distributed.batch_slices import BatchSlice
from fae.distributed.rank_batches import RankBatch
from fae.distributed.wire_bytes import network_bytes, received_bytes
from fae.embedding.base import Embeddings
from fae.streaming.ready_batch import ReadyBatch


class RankWork:
    """Counts of one rank, since this process began to train; with one rank there is nothing to count."""

    def __init__(self, embeddings: Embeddings, model: nn.Module) -> None:
        self._embeddings, self._group = embeddings, embeddings.group
        self._dims = [group.embedding_dim for group in embeddings.layout.groups]
        self._dense_weights = sum(each.numel() for each in model.parameters() if each.requires_grad)
        self._plan = self._group.slices
        self._inputs, self._bytes, self._network_bytes, self._seconds = 0, 0, 0, 0.0

    def counted(self, stream: Iterable[ReadyBatch]) -> Iterable[ReadyBatch]:
        """The same batches, each counted with the step that is made of it."""
        return stream if self._group.world == 1 else self._count(stream)

    def _count(self, stream: Iterable[ReadyBatch]) -> Iterable[ReadyBatch]:
        for batch in stream:
            self._inputs += sum(part.num_inputs for part in batch.slices)
            num_hosts, weights = self._plan.num_hosts, self._dense_weights
            of_others, of_hosts = self._rows(batch)
            self._bytes += int(
                received_bytes(
                    of_others, self._dims, dense_weights=weights, world=self._group.world, num_hosts=num_hosts
                )
            )
            if num_hosts > 1:
                self._network_bytes += int(
                    network_bytes(
                        of_hosts, self._dims, dense_weights=weights, num_hosts=num_hosts,
                        host_ranks=self._plan.host_ranks,
                    )
                )  # fmt: skip
            before = self._group.waited_seconds or 0.0
            try:
                yield batch
            finally:  # also where the loop is left
                self._seconds += (self._group.waited_seconds or 0.0) - before

    def _rows(self, batch: ReadyBatch) -> tuple[Sequence[int], Sequence[int]]:
        """Per group: sums that this rank reads of others, and those of them that come from other hosts."""
        packed, plan = batch.packed, self._plan
        assert isinstance(packed, BatchSlice | RankBatch)
        if plan.num_hosts == 1:
            return packed.rows_of_others, ()
        if isinstance(packed, RankBatch) and not self._embeddings.computes_on_host(batch):
            return packed.rows_of_others, packed.rows_of_hosts
        # Sums of rows that CPUs step go from every rank to all, through host memory.
        near = range(plan.host * plan.host_ranks, (plan.host + 1) * plan.host_ranks)
        others = [rank for rank in range(plan.world) if rank != plan.rank]
        counted = [
            {rank: len(shared.listed.places_of_rank(rank, plan.world)) for rank in others}
            for shared in packed.shared_rows
        ]
        far = [sum(count for rank, count in rows.items() if rank not in near) for rows in counted]
        return [sum(rows.values()) for rows in counted], far

    def gathered(self) -> list[dict[str, Any]]:
        """``train.each_rank`` of the run record: the counts of each rank, by rank; empty where there is one.

        All ranks call it together.
        """
        group = self._group
        if group.world == 1:
            return []
        own = {
            "rank": group.rank,
            "host": group.hosts[group.rank],
            "num_inputs": self._inputs,
            "received_bytes": self._bytes,
            "received_bytes_per_input": self._bytes / self._inputs if self._inputs else None,
            "network_bytes": self._network_bytes if self._plan.num_hosts > 1 else None,
            "waited_seconds": None if group.waited_seconds is None else self._seconds,
        }
        return group.gather_json(own, "what each rank has moved")
