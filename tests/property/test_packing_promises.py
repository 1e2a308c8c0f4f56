"""What holds of every packed artifact, over random logs, hot sets, staging rows and seeds."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fae.artifacts.columnar_log import FeatureSchema
from fae.artifacts.row_layout import RowLayout
from fae.pack import shuffle
from fae.pack.classify import translate_inputs
from fae.pack.in_memory import pack_groups
from fae.pack.pack import pack

from logs import make_log
from packs import check_packed, random_ranks, row_numbers, stub_hot_set


@st.composite
def cases(draw: st.DrawFn) -> dict:
    """A log's columns and a layout for it: list features, unused slots, two widths, tables all hot or all cold."""
    seed = draw(st.integers(0, 2**31))
    random = np.random.default_rng(seed)
    num_tables = draw(st.integers(1, 4))
    features = [
        FeatureSchema(
            name=f"C{t}", num_embeddings=draw(st.integers(1, 60)), length=draw(st.sampled_from([1, 1, 3])), encoded=True
        )
        for t in range(num_tables)
    ]
    dims = [draw(st.sampled_from([4, 8])) for _ in features]
    num_hot = [draw(st.integers(0, feature.num_embeddings)) for feature in features]
    num_inputs = draw(st.integers(0, 90))
    columns = []
    for feature in features:
        popularity = random.random(feature.num_embeddings) ** 4 + 1e-9
        column = random.choice(feature.num_embeddings, (num_inputs, feature.length), p=popularity / popularity.sum())
        used = random.integers(0, feature.length + 1, num_inputs)
        column[np.arange(feature.length) >= used[:, None]] = -1
        columns.append(column)
    layout = RowLayout(features, dims, num_hot, random_ranks(random, features) if draw(st.booleans()) else None)
    batch_size = draw(st.integers(1, 17))
    needed = [
        sum(min(features[t].length, features[t].num_embeddings - num_hot[t]) for t in group.tables)
        for group in layout.groups
    ]
    tight = draw(st.booleans())
    return {
        "ids": np.concatenate(columns, axis=1).astype(np.int32),
        "labels": random.integers(0, 2, num_inputs),
        "dense": random.random((num_inputs, draw(st.integers(0, 3)))).astype(np.float32),
        "features": features,
        "layout": layout,
        "batch_size": batch_size,
        "staging_rows": [count + draw(st.integers(0, 12)) for count in needed] if tight else (),
        "mixed": draw(st.booleans()),
        "num_validation": draw(st.integers(0, num_inputs // 4)),
        "num_test": draw(st.integers(0, num_inputs // 4)),
        "seed": draw(st.integers(0, 5)),
    }


def pack_case(case: dict, folder: Path):
    log = make_log(
        folder, case["ids"], case["labels"], case["dense"], case["features"],
        num_validation=case["num_validation"], num_test=case["num_test"],
    )  # fmt: skip
    hot_set = stub_hot_set(
        case["layout"], batch_size=case["batch_size"], staging_rows=case["staging_rows"], mixed=case["mixed"]
    )
    return pack(log, hot_set, folder / "packed", seed=case["seed"]), log, hot_set


def digests(packed: object) -> dict:
    return {name: facts["crc32"] for name, facts in packed.manifest.files.items()}  # type: ignore[attr-defined]


@settings(max_examples=60)
@given(case=cases())
def test_every_promise_holds(case: dict) -> None:
    with tempfile.TemporaryDirectory() as folder:
        packed, log, hot_set = pack_case(case, Path(folder))
        check_packed(packed, log, hot_set)


@settings(max_examples=25)
@given(case=cases(), bucket_bytes=st.integers(40, 4000), memory_bytes=st.integers(1, 3000), threads=st.integers(1, 5))
def test_memory_and_threads_do_not_change_a_byte(
    case: dict, bucket_bytes: int, memory_bytes: int, threads: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(shuffle, "BUCKET_BYTES", bucket_bytes)
        patch.setenv("FAE_NUM_THREADS", "1")
        at_once, log, hot_set = pack_case(case, Path(folder))
        check_packed(at_once, log, hot_set)
        expected, summary = digests(at_once), at_once.summary
        patch.setenv("FAE_NUM_THREADS", str(threads))
        spilled = pack(log, hot_set, Path(folder) / "packed", seed=case["seed"], memory_bytes=memory_bytes)
        assert digests(spilled) == expected
        assert spilled.summary == summary


@settings(max_examples=40)
@given(case=cases(), data=st.data())
def test_chosen_groups_are_packed_as_they_are(case: dict, data: st.DataObject) -> None:
    ids, layout, batch_size = case["ids"], case["layout"], case["batch_size"]
    rows = row_numbers(ids, layout)
    assert np.array_equal(translate_inputs(ids, layout), rows)
    order = np.random.default_rng(case["seed"]).permutation(len(ids))
    groups, at = [], 0
    while at < len(order):
        size = data.draw(st.integers(0, batch_size))
        groups.append(order[at : at + size])
        at += size or 1
    batches = pack_groups(ids, case["dense"], case["labels"], groups, layout, batch_size)
    assert [batch.num_inputs for batch in batches] == [len(group) for group in groups]
    for batch, group in zip(batches, groups, strict=True):
        for g, row_group in enumerate(layout.groups):
            slots = layout.group_slots(g)
            table = np.concatenate([np.arange(row_group.num_hot_rows), batch.cold_rows[g], [-1]])
            assert np.array_equal(table[batch.addresses[: len(group)][:, slots]], rows[group][:, slots])
        assert np.array_equal(np.sort(batch.order), np.arange(batch_size * layout.num_slots))
