"""Loops of an evaluation are compiled ahead for the very types that it calls them with."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from fae.training.quality.quality_loops import quality_loops
loops = [loop for loop, types in quality_loops() if loop.compile(types) or True]
assert "torch" not in sys.modules
before = [list(loop.signatures) for loop in loops]
assert all(len(each) == 1 for each in before)

import numpy as np
from fae.training.quality.describe import measure_quality
from fae.training.quality.input_columns import InputColumns, columns_of_log
from fae.training.quality.single_columns import SingleColumns
from logs import zipf_log
from pathlib import Path

log = zipf_log(Path(sys.argv[2]), num_inputs=900, num_validation=100, num_test=200, seed=3)
start, stop = log.split("test")
labels = log.labels[start:stop].astype(np.float32)
logits = np.random.default_rng(1).standard_normal(stop - start).astype(np.float32)
logits.flags.writeable = False
chunks = InputColumns(log.features)
chunks.add(np.array(log.ids[start:stop]))
for inputs in (columns_of_log(log, np.arange(start, stop)), chunks):
    found = measure_quality(labels, logits, inputs=inputs, singles=SingleColumns(log))
    assert found["unknown_ids"] and found["context"]["columns"]
assert [list(loop.signatures) for loop in loops] == before
"""


def test_no_loop_is_compiled_again(tmp_path):
    support = next(path for path in sys.path if path.endswith("support"))
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, support, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
