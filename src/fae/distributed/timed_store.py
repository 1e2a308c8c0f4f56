"""torch's key-value store, with a limit of time for each call: its own does not end where the other side is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

CALL_SECONDS = 10.0
"""How long one call may take: it is over at once where its host is there."""
Value = TypeVar("Value")


class TimedStore:
    """A store whose calls raise `RuntimeError` where they take too long, or its host is gone.

    Parameters
    ----------
    store
        torch's.

    Attributes
    ----------
    inner
        The same.
    """

    def __init__(self, store: Store) -> None:
        self.inner = store
        store.set_timeout(timedelta(seconds=CALL_SECONDS))

    def check(self, keys: list[str]) -> bool:
        """Whether all of these keys are there."""
        return self._timed(lambda: bool(self.inner.check(keys)))

    def wait(self, key: str, seconds: float) -> bool:
        """Whether a key is there: at once where it is, or as soon as it comes, and after that time at the latest."""
        from torch.distributed import DistStoreError

        def call() -> bool:
            try:
                self.inner.wait([key], timedelta(seconds=seconds))
            except DistStoreError:  # the time is over
                return bool(self.inner.check([key]))
            return True

        return self._timed(call, seconds + CALL_SECONDS)

    def text(self, key: str) -> str:
        """The value of a key that is there."""
        return self._timed(lambda: bytes(self.inner.get(key)).decode())

    def put(self, key: str, text: str) -> None:
        """Give a key its value."""
        self._timed(lambda: self.inner.set(key, text))

    def add(self, key: str, number: int) -> int:
        """Add to a number, which is 0 at first; the sum."""
        return self._timed(lambda: int(self.inner.add(key, number)))

    def _timed(self, call: Callable[[], Value], seconds: float = CALL_SECONDS) -> Value:
        found: list[Any] = []

        def work() -> None:
            try:
                found.append((call(), None))
            except Exception as error:
                found.append((None, error))

        thread = threading.Thread(target=work, daemon=True, name="fae-store")
        thread.start()
        thread.join(seconds)
        if not found:
            raise RuntimeError(f"no answer within {seconds:.0f} s")
        value, error = found[0]
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]
