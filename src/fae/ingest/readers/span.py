"""A piece of a raw file that is read on its own, and where its inputs begin and end.

Every input of a file is in the piece in which its record begins. In text the first record of a piece begins behind the
first line end from the byte before the piece on; where that line end is in a quoted value, the piece before ends
elsewhere, and this one is read again from there when pieces are put together (`fae.ingest.shards`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Span:
    """Bytes of a text, or row groups of a Parquet file.

    Attributes
    ----------
    begin, end
        The records that begin from `begin` on and before `end`; `end` is None for all that follow.
    is_exact
        Whether a record begins at `begin`; else the first begins behind a line end.
    first_line
        Number of the line at `begin`, for messages.
    """

    begin: int = 0
    end: int | None = None
    is_exact: bool = True
    first_line: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole file."""
        return self.begin == 0 and self.end is None


WHOLE_FILE = Span()


@dataclass(kw_only=True)
class SpanEnds:
    """Told by the reader of a span: where its first record begins, and where the first one behind it does.

    Attributes
    ----------
    unseen
        Wanted columns that no record of the span has, where that is an error if none of the file has them.
    """

    begin: int = 0
    stop: int = 0
    unseen: tuple[str, ...] = ()
