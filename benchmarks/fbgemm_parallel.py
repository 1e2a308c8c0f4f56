"""FBGEMM's tables under the schedule of `model_parallel`: what TorchRec's ranks compute.

TorchRec keeps its tables in FBGEMM's table-batched embeddings and sends ids and vectors by NCCL; its steps are launched
one operation at a time from Python. Here FBGEMM looks the tables of a rank up and steps them, in its fused backward
pass; everything else is `model_parallel`'s: vectors and gradients in bfloat16 by NCCL's all-to-all, our fused dense
part, transfers and updates beside it, all in one CUDA graph. Ids of the whole batch are on each owner's device before
the clock starts, so none is sent. FBGEMM sorts them on the GPU, since it knows no packed order.

Versions pair exactly: fbgemm-gpu 1.6 with torch 2.11; on CPUs, for tests, fbgemm-gpu-cpu 1.8 with torch 2.13.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fae.artifacts.packed import PackedDataset
from fae.artifacts.row_layout import RowLayout
from fae.streaming.row_store import RowStore

from model_parallel import ModelParallel
from model_parallel_step import OwnRows

EPS = 1e-8


def has_fbgemm() -> bool:
    """Whether FBGEMM is installed."""
    return find_spec("fbgemm_gpu") is not None


class FbgemmRows:
    """Table-batched embeddings over the memory of a `RowStore`, which therefore has the rows after each step.

    Parameters
    ----------
    rows
        Number of rows of each table.
    num_inputs
        Inputs of the whole batch, each with one lookup in each table.
    dtype
        That of vectors and their gradients: float32 or bfloat16.
    """

    def __init__(
        self, store: RowStore, rows: list[int], num_inputs: int, dtype: torch.dtype, *,
        optimizer: str, learning_rate: float,
    ) -> None:  # fmt: skip
        from fbgemm_gpu.split_embedding_configs import EmbOptimType, SparseType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import BoundsCheckMode, EmbeddingLocation
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
            ComputeDevice,
            SplitTableBatchedEmbeddingBagsCodegen,
        )

        device, dim = store.weight.device, store.weight.shape[1]
        on_gpu = device.type == "cuda"
        where = (
            (EmbeddingLocation.DEVICE, ComputeDevice.CUDA) if on_gpu else (EmbeddingLocation.HOST, ComputeDevice.CPU)
        )
        kind = EmbOptimType.EXACT_SGD if optimizer == "sgd" else EmbOptimType.EXACT_ROWWISE_ADAGRAD
        self._tables = SplitTableBatchedEmbeddingBagsCodegen(
            embedding_specs=[(count, dim, *where) for count in rows],
            optimizer=kind,
            learning_rate=learning_rate,
            eps=EPS,
            output_dtype=SparseType.BF16 if dtype == torch.bfloat16 else SparseType.FP32,
            bounds_check_mode=BoundsCheckMode.NONE,
            device=device,
        )
        weights = self._tables.weights_dev if on_gpu else self._tables.weights_host
        if weights.numel() != store.weight.numel():
            raise ValueError(f"FBGEMM has {weights.numel()} weights for {store.weight.numel()}")
        weights.data = store.weight.view(-1)
        self._offsets = torch.arange(num_inputs * len(rows) + 1, device=device)
        self._vectors = torch.empty(0)

    def look_up(self, batch: Tensor) -> Tensor:
        """As `OwnRows`; `batch` has the rows of all lookups, int64, one table behind the other."""
        self._vectors = self._tables(batch, self._offsets)
        return self._vectors.detach()

    def update(self, batch: Tensor, gradient: Tensor) -> None:
        """As `OwnRows`."""
        self._vectors.backward(gradient)


class FbgemmParallel(ModelParallel):
    """`ModelParallel` with tables of FBGEMM, of SGD or row-wise Adagrad."""

    def __init__(self, whole: PackedDataset, own: PackedDataset, layout: RowLayout, *args: Any, **options: Any) -> None:
        super().__init__(whole, own, layout, *args, **options)
        first = layout.hot_base.astype(np.int32)  # all rows of a table are hot, and one behind the other
        ids = [np.ascontiguousarray((own.train.batch(index).addresses - first).T) for index in self.order.tolist()]
        self._ids = {
            index: torch.from_numpy(each.reshape(-1).astype(np.int64)).to(self.device)
            for index, each in zip(self.order.tolist(), ids, strict=True)
        }
        self._now_ids = next(iter(self._ids.values())).clone()

    def _rows(self, dtype: torch.dtype) -> OwnRows:
        layout, optimizer = self.embeddings.layout, self.embeddings.optimizer
        return FbgemmRows(
            self.embeddings.device_stores[0], list(layout.num_hot), self._own.batch_size, dtype,
            optimizer=optimizer.name, learning_rate=optimizer.learning_rate,
        )  # fmt: skip

    def _batches(self, order: npt.NDArray[np.int64]) -> Iterator[tuple[int, Any]]:
        for index in order.tolist():
            self._now_ids.copy_(self._ids[index])
            yield 0, self._now_ids
