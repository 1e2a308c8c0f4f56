"""Data that a benchmark finds in its folder is used only where it is what the benchmark would make."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def common() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_common", ROOT / "benchmarks" / "common.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_data_made_of_the_same_is_used_again(common: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "log.tsv"
    for text in ("first", "second"):
        common.made_once(path, {"inputs": 10, "scale": 1.0}, lambda text=text: path.write_text(text))
    assert path.read_text() == "first"


@pytest.mark.parametrize("scale", [0.01, None])
def test_other_data_or_unknown_data_is_refused(common: ModuleType, tmp_path: Path, scale: float | None) -> None:
    path = tmp_path / "log.tsv"
    if scale is None:
        path.write_text("copied here")
    else:
        common.made_once(path, {"inputs": 10, "scale": scale}, lambda: path.write_text("of small tables"))
    with pytest.raises(SystemExit, match=r"scale.: 1\.0") as refusal:
        common.made_once(path, {"inputs": 10, "scale": 1.0}, lambda: path.write_text("never"))
    assert "--folder" in str(refusal.value)


def test_what_was_cut_off_is_refused(common: ModuleType, tmp_path: Path) -> None:
    """A log half written has no note, so it is refused, not used."""
    path = tmp_path / "log.tsv"

    def cut_off() -> None:
        path.write_text("half of it")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        common.made_once(path, {"inputs": 10}, cut_off)
    with pytest.raises(SystemExit, match="not noted"):
        common.made_once(path, {"inputs": 10}, lambda: path.write_text("whole"))
