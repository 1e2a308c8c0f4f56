"""Compiled loops whose kept files are damaged or cannot be kept: the result is the same."""

from __future__ import annotations

import errno
import importlib.util
from pathlib import Path
from typing import Any

import numba
import pytest

from fae.core import compiled

_MODULE = """
from fae.core.compiled import njit

@njit(nogil=True)
def double(value):
    return 2 * value

@njit("int64(int64)", nogil=True)
def triple(value):
    return 3 * value
"""


def loaded(path: Path) -> Any:
    """The module, loaded anew: as another process has it."""
    spec = importlib.util.spec_from_file_location("loops_of_a_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with two loops, kept in ``cache``; nothing was said yet."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(compiled, "_said", [])
    (tmp_path / "loops.py").write_text(_MODULE)
    return tmp_path / "loops.py"


def works(path: Path) -> int:
    """Both loops give what they should; the number of those that were taken from the cache."""
    module = loaded(path)
    assert (module.double(4), module.triple(4)) == (8, 12)
    return sum(sum(loop.stats.cache_hits.values()) for loop in (module.double, module.triple))


@pytest.mark.parametrize("damage", [b"", b"\0" * 100, b"not a pickle"])
@pytest.mark.parametrize("suffix", ["*.nbi", "*.nbc", "*"])
def test_damaged_files_are_made_again(
    loops: Path, damage: bytes, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert works(loops) == 0
    assert works(loops) == 2
    for path in (loops.parent / "cache").rglob(suffix):
        if path.is_file():
            path.write_bytes(damage)
    assert works(loops) == 0
    assert works(loops) == 2, "made again"
    assert capsys.readouterr().err == ""


def test_a_full_disk_is_said_once(
    loops: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile.save", fail)
    assert works(loops) == 0
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "compiled loops cannot be kept in " in said
    assert "No space left on device" in said


def test_a_temporary_folder_of_somebody_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code is read from it and run."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    find = compiled.private_folder.__wrapped__
    own = find()
    assert own is not None
    assert own.stat().st_mode & 0o777 == 0o700
    own.chmod(0o770)
    assert find() is None
    own.rmdir()
    own.symlink_to(tmp_path)
    assert find() is None
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "none"))
    assert find() is None
