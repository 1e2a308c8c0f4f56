"""Profile and calibrate write the same bytes whatever the threads and blocks, and the bytes of the code before them.

``golden_hot_sets.json`` was made at commit 8d57c89, where every pass went block by block; `python test_same_bytes.py`
prints what it would be now.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fae.artifacts.columnar_log import ColumnarLog, FeatureSchema
from fae.calibrate.calibrate import calibrate
from fae.core.errors import BudgetError
from fae.profile import counting, row_sums, sampling
from fae.profile.config import HotConfig
from fae.profile.profile import profile

from logs import make_log, zipf_log

GOLDEN = Path(__file__).parent / "golden_hot_sets.json"
LOGS = ("histories", "ties", "shuffled_ids", "skewed", "one_input")
SELECTIONS = ("auto", "threshold", "peeling")


def histories(folder: Path) -> ColumnarLog:
    """A table with most of the slots, the same row twice in an input, unused slots, inputs without a lookup."""
    random = np.random.default_rng(1)
    features = [
        FeatureSchema(name="history", num_embeddings=300, length=14, encoded=True),
        FeatureSchema(name="item", num_embeddings=700, encoded=True),
        FeatureSchema(name="empty", num_embeddings=5, encoded=True),
        FeatureSchema(name="pair", num_embeddings=40, length=2, encoded=True),
    ]
    columns = [
        (random.random((1900, 14)) ** 3 * 300).astype(int),
        (random.random((1900, 1)) ** 2 * 700).astype(int),
        np.full((1900, 1), -1),
        random.integers(0, 40, (1900, 2)),
    ]
    ids = np.concatenate(columns, axis=1)
    ids[random.random(ids.shape) < 0.3] = -1
    ids[::97] = -1
    return make_log(folder, ids, random.integers(0, 2, 1900), features=features, num_validation=70, num_test=130)


def ties(folder: Path) -> ColumnarLog:
    """Rows that are accessed equally often, in every table."""
    ids = np.stack([np.arange(1200) % 40, np.arange(1200) // 3 % 200, np.arange(1200) * 7 % 60], axis=1)
    return make_log(folder, ids, np.arange(1200) % 3 == 0, num_test=240)


def make(name: str, folder: Path) -> ColumnarLog:
    if name == "one_input":
        return make_log(folder, [[0, 1, 2]], [1])
    if name in ("shuffled_ids", "skewed"):
        encoded = name == "shuffled_ids"
        return zipf_log(
            folder, num_inputs=2600, sizes=(60, 900, 7, 1500), encoded=encoded, num_validation=100, num_test=300
        )
    return {"histories": histories, "ties": ties}[name](folder)


def plain(value: Any) -> Any:
    """A summary with its floats cut to nine digits: another CPU may differ in the last."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return f"{value:.9g}" if isinstance(value, float) else value


def facts_of(log: ColumnarLog, selection: Any, *, sampled: bool, folder: Path) -> dict[str, Any]:
    """Checksums of everything that both stages write, or the error."""
    config = HotConfig(
        budget="9KiB" if len(log.features) == 4 else "3KiB", selection=selection, small_table=200, sample=0.35,
        sample_min_inputs=0 if sampled else 10**6, rand_em_chunks=4, rand_em_chunk_rows=16,
    )  # fmt: skip
    opened = profile(log, config, folder / "profile", seed=7)
    found: dict[str, Any] = {"profile": opened.manifest.files}
    try:
        hot_set = calibrate(
            log, opened, config, folder / "hot_set", embedding_dims=[4, 4, 2, 4][: len(log.features)],
            optimizer="rowwise_adagrad", batch_size=16, mixed=False, seed=7,
        )  # fmt: skip
    except BudgetError as error:
        return {**found, "error": str(error)}
    summary = json.dumps(plain({**opened.manifest.summary, **hot_set.summary}), sort_keys=True)
    return {**found, "hot_set": hot_set.manifest.files, "summary": f"{zlib.crc32(summary.encode()):08x}"}


def all_facts(log: ColumnarLog, folder: Path) -> dict[str, Any]:
    return {
        f"{selection}, {'sample' if sampled else 'everything'}": facts_of(
            log, selection, sampled=sampled, folder=folder / f"{selection}{sampled}"
        )
        for selection, sampled in itertools.product(SELECTIONS, (True, False))
    }


@pytest.mark.parametrize(("threads", "small_blocks"), [(1, False), (2, True), (3, False), (8, True)])
@pytest.mark.parametrize("name", LOGS)
def test_threads_and_blocks_change_no_byte(
    name: str, threads: int, small_blocks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAE_NUM_THREADS", str(threads))
    if small_blocks:
        for module in (sampling, counting):
            monkeypatch.setattr(module, "BLOCK_INPUTS", 5 + 8 * threads)
        monkeypatch.setattr(counting, "_PIECE_BYTES", 4096)
        monkeypatch.setattr(row_sums, "PIECE_ROWS", 11)
    assert all_facts(make(name, tmp_path), tmp_path) == json.loads(GOLDEN.read_text())[name]


if __name__ == "__main__":
    found = {}
    for each in LOGS:
        with tempfile.TemporaryDirectory() as path:
            found[each] = all_facts(make(each, Path(path)), Path(path))
    print(json.dumps(found, indent=1, sort_keys=True))
