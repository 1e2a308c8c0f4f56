"""Which columns a reader takes from one file, under which names, and how chunks are built from them.

A column is wanted as label, dense, categorical, weight, time or split key, and one name may be wanted as several of
these. What no header names may be in the name of a folder of the path, as Hive writes them: ``day=1/part-0.csv``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from fae.core.config import nearest
from fae.core.errors import LogError
from fae.ingest.config import LogConfig
from fae.ingest.readers.chunk import Chunk

_HIVE_MISSING = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, kw_only=True)
class FileColumns:
    """The wanted columns of one file.

    Attributes
    ----------
    label, weight, time, split_by
        Names of columns; None where none is wanted.
    dense, categorical
        Names of columns, in the recipe's order; one may be in both, and in `categorical` more than once: a column of
        times for each part of them.
    folders
        From a wanted column that is in the path alone to its value there; None is a missing value.
    names
        The wanted columns that are in the file, each once: label, dense, categorical, then the others.
    positions
        Their positions in the header.
    """

    label: str | None
    dense: tuple[str, ...]
    categorical: tuple[str, ...]
    weight: str | None
    time: str | None
    split_by: str | None
    folders: Mapping[str, str | None]
    names: tuple[str, ...]
    positions: tuple[int, ...]

    def dense_only(self, name: str) -> bool:
        """Whether a column is wanted as numbers and as nothing else."""
        others = (*self.categorical, self.label, self.weight, self.time, self.split_by)
        return name in self.dense and name not in others

    def chunk(
        self,
        arrays: Mapping[str, Any],
        *,
        num_inputs: int,
        locate: Callable[[int], str],
        raw_bytes: int,
        numbers: Mapping[str, Any] | None = None,
    ) -> Chunk:
        """A chunk of the columns of a file.

        Parameters
        ----------
        arrays
            From each of `names` to its Arrow array ``[n]``.
        numbers
            Arrays of dense columns that differ from those in `arrays`, where a name is wanted as text too.
        """
        import pyarrow as pa  # training imports this module for the names of folders, and needs no pyarrow

        def column(name: str | None) -> Any:
            if name is None:
                return None
            if name in self.folders:
                return pa.repeat(pa.scalar(self.folders[name], pa.string()), num_inputs)
            return arrays[name]

        own = numbers or {}
        return Chunk(
            num_inputs=num_inputs,
            label=column(self.label),
            dense=tuple(own[name] if name in own else column(name) for name in self.dense),
            categorical=tuple(map(column, self.categorical)),
            weight=column(self.weight),
            time=column(self.time),
            split_key=column(self.split_by),
            locate=locate,
            raw_bytes=raw_bytes,
        )


def find_columns(config: LogConfig, header: Sequence[str], path: Path, *, labelled: bool = True) -> FileColumns:
    """Find the columns that the recipe wants in a file's header, else in the names of its folders.

    Parameters
    ----------
    labelled
        Without it label, weight, time and split key are not wanted.

    Raises
    ------
    LogError
        If a column is missing (naming its nearest neighbour) or is there more than once.
    """
    label, weight, time, split_by = (
        (config.label_column(), config.weight, config.time, config.split_by) if labelled else (None,) * 4
    )
    dense, categorical = config.dense_columns(), tuple(column.source for column in config.categorical_columns())
    wanted = config.wanted_columns(labelled=labelled)
    in_path = folder_values(path)
    folders: dict[str, str | None] = {}
    places: dict[str, int] = {}
    counts = Counter(header)
    first = {name: index for index, name in reversed(list(enumerate(header)))}
    for name in wanted:
        if name not in first and name in in_path:
            folders[name] = in_path[name]
        elif name not in first:
            known = [*dict.fromkeys(known for known in header if known), *in_path]
            hint = nearest(name, known)
            others = all(other in first or other in in_path for other in wanted if other != label)
            is_unlabelled = name == label and others and not hint.startswith("did you mean")
            scored = "; fae predict takes a file without labels" if is_unlabelled else ""
            raise LogError(f"{path}: there is no column {name!r}; {hint}{scored}")
        elif counts[name] > 1:
            raise LogError(f"{path}: the column {name!r} is {counts[name]} times in the header; give each its own name")
        else:
            places[name] = first[name]
    return FileColumns(
        label=label, dense=dense, categorical=categorical, weight=weight, time=time, split_by=split_by,
        folders=folders, names=tuple(places), positions=tuple(places.values()),
    )  # fmt: skip


def folder_values(path: Path) -> dict[str, str | None]:
    """Columns in the names of a path's folders, outermost first; the innermost of one name counts.

    >>> folder_values(Path("/logs/day=2026-01-05/shop=caf%C3%A9/part-0.csv"))
    {'day': '2026-01-05', 'shop': 'café'}
    """
    values: dict[str, str | None] = {}
    for part in path.parent.parts:
        name, equals, text = part.partition("=")
        if name and equals:
            values[unquote(name)] = None if text == _HIVE_MISSING else unquote(text)
    return values
