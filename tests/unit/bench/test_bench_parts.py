"""Parts of ``fae bench paper``: plain PyTorch against the plain trainer, lent memory, the arithmetic of a table."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fae.artifacts.columnar_log import ColumnarLog
from fae.bench import evaluation
from fae.bench.config import BenchConfig
from fae.bench.contenders import epoch_swaps
from fae.bench.host import product_gflops, stolen_seconds
from fae.bench.plain_contender import PlainPyTorch, read_batches
from fae.bench.rank_table import lines_of_ranks
from fae.bench.ratios import LABELS, host_warning, tables
from fae.bench.shared_rows import fill, random_rows
from fae.core.errors import ArtifactError
from fae.models.config import model_config
from fae.models.registry import build_model
from fae.streaming import huge_pages
from fae.streaming.huge_pages import host_zeros, lending
from fae.streaming.row_store import RowOptimizer, initial_chunks, initial_rows
from fae.synthetic.columnar_writer import write_columnar
from fae.synthetic.config import SyntheticConfig
from fae.training.plain import PlainEmbeddings, PlainTrainer

MODELS = {
    "criteo": {"name": "dlrm", "embedding_dim": 4, "bottom_mlp": [8], "top_mlp": [8]},
    "taobao": {"name": "tbsm", "embedding_dim": 4, "bottom_mlp": [], "top_mlp": [8, 8], "attention_mlp": [8, 8]},
}


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "rowwise_adagrad", "adam"])
@pytest.mark.parametrize("shape", MODELS)
def test_plain_pytorch_is_the_plain_trainer(tmp_path, shape, optimizer):
    """The contender whose batches are prepared ahead ends with the rows of the trainer that the demo compares with."""
    write_columnar(SyntheticConfig(shape=shape, num_inputs=400, scale=0.0003), tmp_path / "log", ids="encoded")
    log, config = ColumnarLog(tmp_path / "log"), model_config(MODELS[shape])
    options = {"batch_size": 32, "optimizer": optimizer, "learning_rate": 0.05, "device": "cpu"}
    peer = PlainPyTorch(log, model=config, num_batches=3, **options)
    embeddings = PlainEmbeddings(log.features, [4] * len(log.features), seed=1)
    for ours, theirs in zip(peer.embeddings.tables, embeddings.tables, strict=True):
        theirs.weight.data.copy_(ours.weight.data)
    model = build_model(config, log.features, len(log.dense_names), seed=1)
    trainer = PlainTrainer(model, embeddings, RowOptimizer(name=optimizer, learning_rate=0.05))
    peer.run(3)
    for ids, dense, labels in read_batches(log, 32, num_batches=3):
        trainer.step(torch.from_numpy(ids), torch.from_numpy(dense), torch.from_numpy(labels))
    for ours, theirs in zip(peer.embeddings.tables, embeddings.tables, strict=True):
        torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-5, atol=1e-6)


def test_batches_of_plain_pytorch_share_no_input(tmp_path):
    write_columnar(SyntheticConfig(shape="criteo", num_inputs=400, scale=0.0003), tmp_path / "log", ids="encoded")
    batches = read_batches(ColumnarLog(tmp_path / "log"), 32, num_batches=100)
    assert len(batches) == 342 // 32
    dense = np.concatenate([batch[1] for batch in batches])
    assert len(np.unique(dense, axis=0)) == len(dense)


def test_memory_is_lent_to_what_takes_most_of_it_and_to_nothing_else(monkeypatch):
    monkeypatch.setattr(huge_pages, "_HUGE_PAGE_BYTES", 64)
    arena = random_rows(1000)
    assert arena.abs().max() > 0
    with lending(arena):
        whole, most, small, large = host_zeros(250, 4), host_zeros(150, 4), host_zeros(10, 4), host_zeros(300, 4)
    assert whole.data_ptr() == most.data_ptr() == arena.data_ptr()
    assert not small.any()
    assert not large.any()
    assert not host_zeros(250, 4).any()


def test_rows_are_filled_to_the_end(monkeypatch):
    monkeypatch.setattr("fae.bench.shared_rows._FILL_FLOATS", 7)
    weight = torch.zeros(5, 4)
    fill(weight)
    assert (weight != 0).all()
    assert weight.abs().max() < 1


@pytest.mark.parametrize("threads", ["1", "5"])
def test_first_rows_do_not_depend_on_threads_or_ranges(monkeypatch, threads):
    monkeypatch.setenv("FAE_NUM_THREADS", threads)
    size = 150_000
    parts = [
        initial_rows(3, "t", size, 2, start, stop) for start, stop in initial_chunks(size, 2 if threads == "5" else 1)
    ]
    whole = initial_rows(3, "t", size, 2, 0, size, out=np.empty((size, 2), np.float32))
    assert np.array_equal(np.concatenate(parts), whole)
    assert np.abs(whole).max() <= 1 / np.sqrt(size)
    assert whole[:3].tobytes() == np.array(FIRST, np.float32).tobytes()


FIRST = [
    [-0.00231556105427444, 0.0012962175533175468],
    [0.002330910414457321, -0.0011588307097554207],
    [0.00024641468189656734, 0.0005921609699726105],
]
"""As they were drawn before threads shared the work."""


@pytest.mark.parametrize(("hot", "cold", "swaps"), [(0, 5, 0), (5, 0, 0), (4, 4, 4), (100, 200, 4)])
def test_swaps_of_an_epoch(hot, cold, swaps):
    assert sum(epoch_swaps(hot, cold).values()) == swaps


def test_a_table_follows_from_its_cells():
    def speed(*rates, **more):
        return {"samples": [{"samples_per_second": rate, "batches": 2} for rate in rates], **more}

    phases = {
        "cold": {"seconds": 2.0, "batches": 4, "epoch_batches": 40},
        "hot": {"seconds": 1.0, "batches": 5, "epoch_batches": 20},
        "swaps": {"swap_to_device": 0.5, "swap_to_host": 0.25},
    }  # fmt: skip
    paper = speed(20.0, swaps={"to_device": 2, "to_host": 1})
    paper["samples"][0]["phases"] = phases
    pack = {
        "train_inputs": 600, "staged_rows": 7, "cold_batches": 40, "hot_batches": 20, "hot_bytes": 1000,
        "input_share": 0.4, "coverage": 0.9,
    }  # fmt: skip
    cells = {
        "10/facts": {
            "width": 3, "row_bytes": 8, "batch_size": 10, "own": pack, "threshold": pack,
            "mixed": {**pack, "staged_rows": 9},
        },
        "10/speed/plain cpu": speed(9.0, 11.0, 10.0), "10/speed/plain hybrid": {"samples": [], "why": "no GPU"},
        "10/speed/paper": paper, "10/speed/tiered": speed(100.0),
        "10/speed/tiered shuffled": speed(90.0),
        "10/accuracy/interleaved": {"test": {"auc": 0.7, "log_loss": 0.5}, "train": {}},
    }  # fmt: skip
    (table,) = tables(cells, [10], {"train_inputs": 600})
    rows = {row["contender"]: row for row in table["rows"]}
    assert rows["plain cpu"]["samples_per_second"] == 10.0
    assert rows["plain cpu"]["spread"] == [9.0, 11.0]
    assert rows["plain cpu"]["epoch_seconds"] == 60.0
    assert rows["tiered"]["over plain cpu"] == 10.0
    assert "over plain hybrid" not in rows["tiered"]
    assert rows["tiered"]["auc"] == 0.7
    assert rows["paper"]["auc"] is None
    assert (rows["tiered"]["bytes_to_device"], rows["tiered"]["bytes_to_host"]) == (56, 56)
    assert (rows["tiered shuffled"]["bytes_to_device"], rows["tiered shuffled"]["auc"]) == (72, None)
    assert (rows["paper"]["bytes_to_device"], rows["paper"]["bytes_to_host"]) == (4800 + 2000, 4800 + 1000)
    assert rows["paper"]["swaps"] == 3
    assert table["left_out"] == [{"contender": "plain hybrid", "label": "plain PyTorch, CPU-GPU", "why": "no GPU"}]
    assert table["published"]["epoch_seconds"] == {
        "cold": 20.0, "hot": 4.0, "swaps_to_device": 1.0, "swaps_to_host": 0.25
    }  # fmt: skip
    assert table["claims"][0]["ours"] == {"paper": 2.0, "tiered": 10.0}
    assert table["host"] == {}, "of a record from before the host was read"
    cells["10/speed/tiered"]["samples"][0] |= {"host_gflops": 1200.0, "session": 0}
    cells["10/speed/plain cpu"]["samples"][0] |= {"host_gflops": 500.0, "session": 1}
    (table,) = tables(cells, [10], {"train_inputs": 600})
    assert table["host"] == {"gflops": [500.0, 1200.0]}, "two machines may differ"
    cells["10/speed/plain cpu"]["samples"][0]["session"] = 0
    (table,) = tables(cells, [10], {"train_inputs": 600})
    assert "500 to 1,200 GFLOP/s" in table["host"]["warning"]


@pytest.mark.parametrize(
    ("workload", "device", "was_left_out"), [("rmc1", "cuda", True), ("rmc1", "cpu", False), ("rmc2", "cuda", False)]
)
def test_a_record_from_before_models_were_compiled_continues_without(tmp_path, workload, device, was_left_out):
    """Cells of both kinds in one table would compare what was never compared."""

    def opened(no_compile):
        config = BenchConfig(workload=workload, no_compile=no_compile)
        (tmp_path / evaluation.RECORD).unlink(missing_ok=True)
        settings = evaluation.open_cells(config, tmp_path, device).settings
        older = {name: value for name, value in settings.items() if name != "no_compile"}
        (tmp_path / evaluation.RECORD).write_text(json.dumps({"settings": older, "cells": {"a": {}}, "sessions": []}))
        return evaluation.open_cells(config, tmp_path, device)

    assert list(opened(was_left_out)) == ["a"]
    with pytest.raises(ArtifactError, match=f"no_compile = {was_left_out} and not {not was_left_out}"):
        opened(not was_left_out)


def test_a_disturbed_host_is_noticed(tmp_path):
    assert product_gflops() > 0
    assert host_warning([]) == host_warning([1200.0]) == host_warning([1200.0, 801.0, 1000.0]) == ""
    assert "540 to 1,280 GFLOP/s" in host_warning([1280.0, 540.0, 900.0])
    stat = tmp_path / "stat"
    stat.write_text("cpu  10 20 30 40 50 60 70 850 90 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n")
    assert stolen_seconds(stat) == 8.5
    stat.write_text("cpu  10 20\n")
    assert stolen_seconds(stat) == 0.0


def test_rows_of_several_gpus_follow_from_their_cells():
    def speed(*rates):
        return {"samples": [{"samples_per_second": rate, "batches": 3} for rate in rates], "device_bytes": 5}

    cells = {
        "10/gpus/2/hybrid": speed(30.0, 32.0, 34.0), "10/gpus/2/hybrid/one": speed(20.0, 20.0, 20.0),
        "10/gpus/2/tiered": speed(160.0), "10/gpus/2/tiered/one": speed(100.0),
        "10/gpus/4/tiered": speed(300.0), "10/gpus/4/tiered/one": speed(120.0, 110.0),
        "10/gpus/4/device": {"samples": [], "why": "too large"}, "100/gpus/2/tiered": speed(1.0),
    }  # fmt: skip
    (table,) = tables(cells, [10], {"train_inputs": 600})
    rows = {(row["gpus"], row["contender"]): row for row in table["gpus"]}
    assert list(rows) == [(1, "hybrid"), (1, "tiered"), (2, "hybrid"), (2, "tiered"), (4, "tiered")]
    assert rows[1, "tiered"]["samples_per_second"] == 110.0
    assert rows[1, "tiered"]["over data parallel"] == 5.5
    assert "over one" not in rows[1, "tiered"]
    assert (rows[2, "hybrid"]["global_batch"], rows[2, "hybrid"]["spread"]) == (20, [30.0, 34.0])
    assert (rows[2, "tiered"]["over one"], rows[2, "tiered"]["over data parallel"]) == (1.6, 5.0)
    assert rows[4, "tiered"]["over one"] == 300 / 115
    assert "over data parallel" not in rows[4, "tiered"], "hybrid was not measured on 4"
    lines = lines_of_ranks(table["gpus"], LABELS, device="cuda")
    assert lines[0] == "  on several GPUs, 10 inputs on each"
    assert lines[4].endswith("160 inputs/s (160 to 160); 1.60x one, 5.00x FAE's kernels, CPU-GPU on 2")
    assert "gpus" not in tables({"10/facts": {}}, [10], {"train_inputs": 600})[0]
