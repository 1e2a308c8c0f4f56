"""The types that loops of profile and calibrate are compiled for ahead are those that the stages call them with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

RUN = """
import sys
from pathlib import Path
from fae.calibrate.calibrate import calibrate
from fae.calibrate.loop_types import calibration_loops
from fae.profile.config import HotConfig
from fae.profile.profile import profile
from logs import zipf_log

folder = Path(sys.argv[1])
log = zipf_log(folder, num_inputs=3000, encoded=True, num_validation=100, num_test=300)
config = HotConfig(budget="8KiB", sample=0.4, sample_min_inputs=0, small_table=1)
opened = profile(log, config, folder / "profile", seed=1)
calibrate(
    log, opened, config, folder / "hot_set", embedding_dims=[4, 4, 2, 4], optimizer="sgd", batch_size=16, mixed=False,
    seed=1,
)
for loop, types in calibration_loops():
    print(loop.__name__, "ok" if loop.signatures == [types] else (loop.signatures, types))
"""


def test_a_stage_that_reads_a_sample_compiles_nothing_else(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "FAE_NUM_THREADS": "2"}
    found = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.split("\n")[:-1] == [
        f"{name}_kernel ok"
        for name in ("count", "mark_rows", "unique_rows", "incidence", "order_rows", "remove_rows", "classify")
    ]
