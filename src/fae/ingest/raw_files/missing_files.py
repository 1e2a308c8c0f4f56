"""The errors for raw files that cannot be found or reached: a log that was made from them before is used then."""

from __future__ import annotations

from fae.core.errors import LogError


class MissingFilesError(LogError):
    """A name or pattern of the recipe leads to no file, or to one that cannot be read."""


class RemoteFileError(MissingFilesError):
    """A file in an object store or on a server cannot be reached, or not be read to its end.

    Attributes
    ----------
    is_absent
        Nothing is under its name.
    is_passing
        Another try may succeed: the connection was cut, or the server is busy.
    """

    def __init__(self, text: str, *, is_absent: bool = False, is_passing: bool = False) -> None:
        super().__init__(text)
        self.is_absent, self.is_passing = is_absent, is_passing
