"""The one resumable list of measured cells: a JSON file that is saved after every figure and refuses other settings.

    cells = Cells(path, settings={"scale": 0.1}, header=record(), until_seconds=3600)
    for key in cells.missing(["64/cpu", "64/tiered"]):
        if not cells.late():
            cells.measure(key, lambda: {"seconds": time_it(key)})     # saved; a second start measures the rest
    rates = cells["64/cpu"]["seconds"]

Where figures are taken in turns, a cell is a list of samples: `add_sample(key, sample)` and `missing(keys, samples=3)`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fae.core.errors import ArtifactError
from fae.core.whole_files import json_values, write_record

Cell = dict[str, Any]


class Cells(Mapping[str, Cell]):
    """Cells by name, in a record ``{"settings": {...}, "cells": {name: cell}, ...}``.

    Parameters
    ----------
    path
        The record. Its folder must be there.
    settings
        What all cells have in common, JSON values. A record of other settings is refused.
    header
        Further keys of the record (machine, commit, command); they replace those of the record that is there.
    older_settings
        Values of the settings that a record may lack because it was made before they existed; a record that lacks
        another one is refused.
    what
        What the file is, for the error message.
    before_saving
        Called with the record before every save, to refresh what follows from the cells.
    until_seconds
        `late` is true once that many seconds have passed since the list was opened; 0 is no limit.

    Raises
    ------
    ArtifactError
        If the file is no such record, or one of other settings.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        *,
        header: Mapping[str, Any] | None = None,
        older_settings: Mapping[str, Any] | None = None,
        what: str = "record of cells",
        before_saving: Callable[[dict[str, Any]], None] | None = None,
        until_seconds: float = 0.0,
    ) -> None:
        self.path = path
        self._until, self._opened = until_seconds, time.monotonic()
        self.before_saving = before_saving
        self.settings: dict[str, Any] = json.loads(json.dumps(dict(settings)))
        found = self._read(older_settings or {}, what)
        self.record: dict[str, Any] = found or {"settings": self.settings, "cells": {}}
        self.record.update(header or {})
        self._cells: dict[str, Cell] = self.record["cells"]

    def _read(self, older_settings: Mapping[str, Any], what: str) -> dict[str, Any] | None:
        if not self.path.exists():
            return None
        try:
            found: dict[str, Any] = json.loads(self.path.read_text())
            before = dict(found["settings"])
            if not isinstance(found["cells"], dict):
                raise TypeError("cells")
        except (OSError, ValueError, KeyError, TypeError):
            raise ArtifactError(f"{self.path} is no {what}; choose another --out") from None
        before = {**older_settings, **before}
        for name, value in self.settings.items():
            if name not in before or before[name] != value:
                raise ArtifactError(
                    f"{self.path} was measured with {name} = {before.get(name)!r} and not {value!r}; choose another "
                    "--out, or move it away"
                )
        return found

    def __getitem__(self, key: str) -> Cell:
        return self._cells[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)

    def __repr__(self) -> str:
        return f"Cells({str(self.path)!r}, {len(self)} measured)"

    def missing(self, keys: Iterable[str], samples: int = 0) -> list[str]:
        """Those of `keys` that have no cell or, where `samples` is given, fewer than that many samples."""
        return [
            key for key in keys if key not in self._cells or len(self._cells[key].get("samples", ())) < samples
        ]  # fmt: skip

    def measure(self, key: str, work: Callable[[], Cell]) -> Cell:
        """The cell from the record or, where it is missing, what `work` returns, which is saved."""
        if key not in self._cells:
            self.put(key, work())
        return self._cells[key]

    def put(self, key: str, cell: Cell) -> None:
        """Set a cell and save."""
        self._cells[key] = cell
        self.save()

    def sample_cell(self, key: str) -> Cell:
        """The cell of samples named `key`, made with an empty list where it is missing; the next save writes it."""
        return self._cells.setdefault(key, {"samples": []})

    def note(self, key: str, facts: Mapping[str, Any]) -> None:
        """Add facts to a cell, which the next save writes; facts of the same name are replaced."""
        self._cells.setdefault(key, {}).update(facts)

    def add_sample(self, key: str, sample: Mapping[str, Any]) -> None:
        """Append one sample to a cell and save."""
        self.sample_cell(key)["samples"].append(dict(sample))
        self.save()

    def late(self) -> bool:
        """Whether the time limit has passed, so that no further cell should be begun."""
        return 0 < self._until < time.monotonic() - self._opened

    def seconds_left(self) -> float:
        """Seconds until `late` is true, more than 0; 0 where there is no limit."""
        return max(1e-3, self._until - (time.monotonic() - self._opened)) if self._until else 0.0

    def reload(self) -> None:
        """Read the record again, to which another process has added."""
        found = json.loads(self.path.read_text())
        self.record.clear()
        self.record.update(found)
        self._cells = self.record["cells"]

    def save(self) -> None:
        """Write the record whole; NaN and infinity become null."""
        if self.before_saving is not None:
            self.before_saving(self.record)
        write_record(self.path, json_values(self.record))
