"""Random batches whose addresses pack has composed, for tests of what follows from their order and segments."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from fae.artifacts.columnar_log import FeatureSchema
from fae.artifacts.packed import BatchSet
from fae.artifacts.row_layout import RowLayout
from fae.pack.compose import Composer
from fae.pack.log_reader import LogInputs

from cases import Log
from packs import random_ranks


@st.composite
def batches_with_addresses(draw: st.DrawFn, multiple: int = 1) -> tuple[Log, RowLayout, BatchSet]:
    """Batches with composed addresses: empty slots and batches, one row for all, long rows, several widths.

    Parameters
    ----------
    multiple
        What divides the batch size.
    """
    random = np.random.default_rng(draw(st.integers(0, 2**31)))
    num_tables, batch_size = draw(st.integers(1, 4)), multiple * draw(st.integers(1, max(40, 140 // multiple)))
    features = [
        FeatureSchema(name=f"C{t}", num_embeddings=draw(st.sampled_from([1, 2, 40, 3000])), length=length)
        for t, length in enumerate(draw(st.lists(st.integers(1, 5), min_size=num_tables, max_size=num_tables)))
    ]
    dims = [draw(st.sampled_from([4, 8, 12])) for _ in features]
    num_inputs = batch_size * draw(st.integers(1, 3))
    columns = []
    for feature in features:
        skew = draw(st.sampled_from([0, 1, 6, 40]))  # from all rows to one
        ids = (feature.num_embeddings * random.random((num_inputs, feature.length)) ** skew).astype(np.int64)
        ids = np.minimum(ids, feature.num_embeddings - 1)
        ids[random.random(ids.shape) < draw(st.sampled_from([0.0, 0.0, 0.3, 0.97, 1.0]))] = -1
        columns.append(ids)
    groups, start = [], 0
    while start < num_inputs:
        size = min(draw(st.sampled_from([batch_size, batch_size, 1])), num_inputs - start)
        groups.append(np.arange(start, start + size))
        start += size
        if len(groups) == 4:
            break
    ids = np.concatenate(columns, 1).astype(np.int32)
    log = Log(
        ids=ids, dense=np.zeros((num_inputs, 1), np.float32), labels=np.zeros(num_inputs, np.uint8), groups=groups,
        features=tuple(features), embedding_dims=tuple(dims), batch_size=batch_size,
    )  # fmt: skip
    num_hot = [draw(st.integers(0, feature.num_embeddings)) for feature in features]
    layout = RowLayout(features, dims, num_hot, random_ranks(random, features))
    inputs = LogInputs(ids=log.ids, dense=log.dense, labels=log.labels, weights=None)
    bounds = np.cumsum([0, *map(len, groups)]).astype(np.int64)
    composer = Composer(layout, 1, batch_size, None, with_addresses=True)
    arrays = composer.compose_groups(inputs, np.concatenate(groups).astype(np.int64), bounds)
    return log, layout, BatchSet(arrays, 0)
