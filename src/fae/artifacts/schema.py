"""Read what an artifact says of itself as if anybody had written it: types and ranges of its fields and arrays."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.checksums import damaged, make_again
from fae.core.errors import ArtifactError
from fae.core.npy import HEADER_BYTES, read_header

MOST = 2**62
"""Bound of any count in a manifest: sums of a few of them stay within int64."""
MOST_DIM = 2**20
"""Widest row of a table."""


class Fields:
    """One object of a manifest, read field by field.

    Parameters
    ----------
    found
        The JSON value.
    place
        Where it is, for errors: ``summary.features[3]``.
    path, command
        The artifact, and the command that makes it.
    """

    def __init__(self, found: Any, place: str, path: Path, command: str) -> None:
        self._place, self.path, self.command = place, path, command
        if not isinstance(found, dict):
            raise self._fault("", found, "an object")
        self._found = found

    def _fault(self, key: str, value: Any, expected: str) -> ArtifactError:
        shown = repr(value)
        name = f"{self._place}.{key}" if key else self._place
        return ArtifactError(
            f"{self.path / 'manifest.json'} is damaged: {name} is {shown if len(shown) < 60 else shown[:57] + '...'}, "
            f"expected {expected}; {make_again(self.path, self.command)}"
        )

    def fault(self, expected: str) -> ArtifactError:
        """The error for the object as a whole."""
        return self._fault("", self._found, expected)

    def keys(self) -> set[str]:
        """Names of its fields."""
        return set(self._found)

    def values(self) -> dict[str, Any]:
        """All of it, unchecked."""
        return dict(self._found)

    def __contains__(self, key: str) -> bool:
        return self._found.get(key) is not None

    def whole(self, key: str, low: int = 0, high: int = MOST) -> int:
        """A whole number of ``[low, high]``."""
        return self._whole(key, self._found.get(key), low, high)

    def _whole(self, key: str, value: Any, low: int, high: int) -> int:
        if type(value) is not int or not low <= value <= high:
            raise self._fault(key, value, f"a whole number from {low} to {high}")
        return value

    def wholes(self, key: str, low: int = 0, high: int = MOST, *, count: int | None = None) -> list[int]:
        """A list of whole numbers of ``[low, high]``."""
        values = self._items(key)
        if count is not None and len(values) != count:
            raise self._fault(key, values, f"{count} numbers")
        return [self._whole(f"{key}[{index}]", value, low, high) for index, value in enumerate(values)]

    def number(self, key: str) -> float:
        """A finite number."""
        value = self._found.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self._fault(key, value, "a number")
        return value

    def flag(self, key: str) -> bool:
        """A truth value."""
        value = self._found.get(key)
        if not isinstance(value, bool):
            raise self._fault(key, value, "true or false")
        return value

    def text(self, key: str, choices: Collection[str] = ()) -> str:
        """A text, one of `choices` if there are any."""
        value = self._found.get(key)
        if not isinstance(value, str) or (choices and value not in choices):
            raise self._fault(key, value, f"one of {', '.join(choices)}" if choices else "a text")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of texts."""
        values = self._items(key)
        if not all(isinstance(value, str) for value in values):
            raise self._fault(key, values, "a list of texts")
        return values

    def _items(self, key: str) -> list[Any]:
        values = self._found.get(key)
        if not isinstance(values, list):
            raise self._fault(key, values, "a list")
        return values

    def part(self, key: str) -> Fields:
        """An object inside this one."""
        return Fields(self._found.get(key), f"{self._place}.{key}", self.path, self.command)

    def parts(self, key: str) -> list[Fields]:
        """A list of objects."""
        return [
            Fields(value, f"{self._place}.{key}[{index}]", self.path, self.command)
            for index, value in enumerate(self._items(key))
        ]

    def numbers(self, key: str, *, nulls: bool = True) -> None:
        """Check an object of numbers, and of nulls if they are allowed, if it is there: name to number."""
        if key in self:
            part = self.part(key)
            for name, value in part._found.items():
                if value is not None or not nulls:
                    part.number(name)


def open_array(
    path: Path, name: str, dtype: npt.DTypeLike, shape: tuple[int | None, ...], command: str
) -> npt.NDArray[Any]:
    """Map the ``.npy`` file `name` of the artifact at `path`, read-only.

    Parameters
    ----------
    shape
        What the manifest says; None is any length.

    Raises
    ------
    ArtifactError
        If it has another type, shape or order, or cannot be read.
    """
    file, kind = path / name, np.dtype(dtype)
    try:
        with file.open("rb") as opened:
            found, there = read_header(opened)
        size = file.stat().st_size
    except (OSError, ValueError, TypeError) as error:
        raise damaged(path, name, command, str(error)) from error
    fits = len(there) == len(shape) and all(
        wanted is None or wanted == length for wanted, length in zip(shape, there, strict=True)
    )
    if found != kind or not fits or size != HEADER_BYTES + kind.itemsize * math.prod(there):
        expected = " x ".join("any" if length is None else str(length) for length in shape)
        raise damaged(
            path, name, command,
            f"it has {size} bytes and says that it holds {' x '.join(map(str, there))} of {found}, expected {expected} "
            f"of {kind}",
        )  # fmt: skip
    array: npt.NDArray[Any] = np.memmap(file, kind, mode="r", offset=HEADER_BYTES, shape=there)
    return array
