"""A plan times ingest with the workers that the whole log will have, and pack as it will be held."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from fae.engine import local
from fae.planning.sample.log_reading import read_log
from fae.planning.stages import stage_probe
from fae.run.recipe import load_recipe

RECIPE = """
[log]
format = "csv"
train = "log.csv"
categorical = ["user", "item"]
[model]
name = "dlrm"
embedding_dim = 8
[hot]
budget = "64KiB"
[train]
batch_size = 128
placement = "tiered"
"""


@pytest.mark.parametrize("is_large", [False, True])
def test_every_sample_has_the_workers_and_the_memory_of_the_whole_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_large: bool
) -> None:
    draw = random.Random(1)
    lines = (f"{draw.randint(0, 1)},u{draw.randint(0, 500)},i{draw.randint(0, 900)}\n" for _ in range(20_000))
    (tmp_path / "log.csv").write_text("label,user,item\n" + "".join(lines))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    recipe = load_recipe(tmp_path / "recipe.toml")
    (tmp_path / "sample").mkdir()
    reading = read_log(recipe, None, tmp_path / "sample", read_bytes=2**62)
    seen: list[tuple[str, int]] = []
    ingest, pack = stage_probe.ingest, stage_probe.pack
    memory: list[Any] = []

    def ingest_seen(*arguments: Any, engine: local.LocalEngine, **options: Any) -> Any:
        chosen = engine.chosen
        context = getattr(chosen, "_context", None)
        seen.append((type(chosen).__name__, 0 if context is None else len(context._started)))
        return ingest(*arguments, engine=engine, **options)

    def pack_seen(*arguments: Any, memory_bytes: int, **options: Any) -> Any:
        memory.append(memory_bytes)
        return pack(*arguments, memory_bytes=memory_bytes, **options)

    monkeypatch.setenv("FAE_NUM_THREADS", "2")
    monkeypatch.setattr(local, "is_much", lambda num_bytes: is_large)
    monkeypatch.setattr(stage_probe, "ingest", ingest_seen)
    monkeypatch.setattr(stage_probe, "pack", pack_seen)
    monkeypatch.setattr(stage_probe, "default_memory", lambda: 2**20 if is_large else 2**40)
    monkeypatch.setattr(stage_probe, "_input_bytes", lambda log: 100)
    (tmp_path / "probe").mkdir()
    probe = stage_probe.probe_stages(recipe, reading, tmp_path / "probe", largest=2**17, rounds=1)
    assert probe.rates.keys() == {"ingest", "profile", "calibrate", "pack"}
    assert seen == [("ProcessesEngine", 2) if is_large else ("ThreadsEngine", 0)] * 3
    assert all((each < 2**40) == is_large for each in memory)
    assert len(memory) == 3
