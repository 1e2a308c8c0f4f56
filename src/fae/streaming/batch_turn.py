"""BatchTurn: how long a batch of a stream is good for, and the error that says that its turn is over.

A batch has its turn from the moment the stream yields it until the next one is requested or the stream is closed: its
rows are within reach only then. In its turn it may be looked up any number of times and updated once; the update is
the end of it, because kernels that read rows where an earlier batch left them would find old values afterwards. The
checks are comparisons in Python; a captured step is replayed without them.

As a context manager a turn lasts as long as its block, which a stream leaves when it is advanced or closed.
"""

from __future__ import annotations

_ADVICE = (
    "look up and update each batch before the stream yields the next one, and stream it again to use it again "
    "(docs/guide/train.md, A loop of your own)"
)


class BatchTurn:
    """The turn of one batch.

    Parameters
    ----------
    owner
        The embeddings whose stream yields the batch.
    frozen
        Whether the stream is for evaluation: rows are read and not written back.
    """

    __slots__ = ("_owner", "_why_over", "frozen")

    def __init__(self, owner: object, *, frozen: bool = False) -> None:
        self._owner, self._why_over, self.frozen = owner, "", frozen

    def __enter__(self) -> BatchTurn:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        closed = kind is not None and issubclass(kind, GeneratorExit)
        self.end("its stream was closed" if closed else "its stream has yielded the next batch, or has ended")

    def end(self, why: str) -> None:
        """The batch may not be used from here on; the first reason is kept."""
        self._why_over = self._why_over or why

    def reopen(self) -> None:
        """Take an `end` back: the step that ended it was not made after all."""
        self._why_over = ""

    @property
    def is_over(self) -> bool:
        """Whether the batch may not be used any more."""
        return bool(self._why_over)

    def require(self, owner: object, verb: str) -> None:
        """Refuse `verb` where the turn is over, or where the batch is another one's.

        Raises
        ------
        RuntimeError
            If so; it says what ended the turn.
        """
        if self._owner is not owner:
            raise RuntimeError(f"{verb} of a batch that other embeddings have streamed; stream it with these")
        if self._why_over:
            raise RuntimeError(f"{verb} of a batch whose turn is over: {self._why_over}; {_ADVICE}")
