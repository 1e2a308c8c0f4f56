"""What to do about a file that cannot be read is what its reason says, wherever it is said."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fae.core.errors import RecipeError
from fae.core.files import read_advice
from fae.ingest.readers.line_blocks import cannot_read, cut_short
from fae.run import recipe

_ADVICE = {errno.EMFILE: "ulimit -n", errno.ENOMEM: "free some memory", errno.EACCES: "permissions", errno.EIO: "disk"}


def fault(number: int) -> OSError:
    return OSError(number, os.strerror(number), "a.csv")


@pytest.mark.parametrize("number", _ADVICE)
def test_the_reason_decides(number: int) -> None:
    assert _ADVICE[number] in read_advice(fault(number))
    assert _ADVICE[number] in str(cannot_read(Path("a.csv"), fault(number)))


def test_few_open_files_are_no_damaged_file_and_no_faulty_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    line = str(cut_short(Path("a.csv"), fault(errno.EMFILE)))
    assert "ulimit -n" in line
    assert "copy it again" not in line
    assert "copy it again" in str(cut_short(Path("a.csv"), fault(errno.EIO)))

    def refuse(path: Path) -> str:
        raise fault(errno.EMFILE)

    monkeypatch.setattr(recipe, "read_text", refuse)
    with pytest.raises(RecipeError, match=r"Too many open files; raise the limit on open files \(ulimit -n"):
        recipe.load_recipe("r.toml")
