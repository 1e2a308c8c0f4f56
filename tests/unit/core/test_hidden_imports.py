"""A package that is hidden from one thread is not found by it, and by it alone; what is loaded stays."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fae.core.compiled import is_installed
from fae.core.compiling.hidden_packages import hidden

_NUMBA = """
import sys
from fae.core.compiled import njit

@njit(nogil=True)
def double(value):
    return 2 * value

assert double(4) == 8
assert not {name for name in sys.modules if name.split(".")[0] == "scipy"}
import numba, numpy
assert numba.njit(lambda a, b: numpy.dot(a, b))(numpy.ones((3, 2)), numpy.ones((2, 3))).sum() == 18
assert "scipy" in sys.modules
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a package that can be imported and is not yet."""
    (tmp_path / "package_of_a_test.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "package_of_a_test", raising=False)
    return "package_of_a_test"


def test_a_hidden_package_is_not_found(package: str) -> None:
    with hidden(package):
        assert not is_installed(package)
        with pytest.raises(ModuleNotFoundError, match=package):
            importlib.import_module(package)
    assert is_installed(package)
    loaded = importlib.import_module(package)
    with hidden(package):
        assert importlib.import_module(package) is loaded


def test_other_threads_find_it(package: str) -> None:
    with hidden(package):
        thread = threading.Thread(target=importlib.import_module, args=(package,))
        thread.start()
        thread.join()
        assert package in sys.modules


def test_it_is_found_again_after_an_error(package: str) -> None:
    with pytest.raises(ZeroDivisionError), hidden(package):
        raise ZeroDivisionError
    assert importlib.import_module(package).__name__ == package


def test_numba_loads_scipy_for_code_that_needs_it_alone(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    (tmp_path / "program.py").write_text(_NUMBA)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
