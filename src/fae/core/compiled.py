"""The decorators for loops that numba compiles and keeps on disk, and the array type that most of them take.

Loops of ingest also run as plain Python with the same result (tests compare both): integer products stay below
2^63, so nothing overflows in either.

numba keeps what it compiled beside the package, or in the user's cache folder, and fails where neither can be written.
Here it is then kept in a folder of this user's below the temporary one, or not at all; a kept file that is damaged, or
cannot be written, costs the time to compile and nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from fae.core.compiling.hidden_packages import hidden
from fae.core.compiling.loop_locks import LoopLock
from fae.core.printable import tell


def is_installed(package: str) -> bool:
    """Whether `package` (a top-level name) could be imported; it is not."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # a module that was put there by hand may have no spec
        return package in sys.modules


# numba looks at the version of the one, which takes half a second, and for settings of the other.
with hidden("scipy"), hidden("coverage"):
    import numba
    from numba.core.caching import FunctionCache

F = TypeVar("F", bound=Callable[..., Any])
Int64 = npt.NDArray[np.int64]


def compiled(function: F) -> F:
    """Compile with numba's ``njit``: cached on disk, run without the GIL. The function keeps its type for mypy."""
    return cast(F, njit(nogil=True)(function))


def inlined(function: F) -> F:
    """As `compiled`, but put into each loop that calls it: to count the users of an array takes 10 ns a call."""
    return cast(F, njit(nogil=True, inline="always")(function))


def njit(*signatures: Any, **options: Any) -> Callable[[Any], Any]:
    """``numba.njit`` with options, cached on disk wherever that is possible.

    Parameters
    ----------
    signatures
        Types to compile for at once; without them it is compiled when it is called.
    options
        Of ``numba.njit``; ``cache`` is on unless it is False.
    """
    is_kept = options.pop("cache", True)

    def decorate(function: Any) -> Any:
        dispatcher = numba.njit(**options)(function)
        cache = _cache_of(function) if is_kept and hasattr(dispatcher, "_cache") else None
        if cache is not None:
            dispatcher._cache = cache
        if signatures and hasattr(dispatcher, "compile"):
            from numba.core import typeinfer

            with typeinfer.register_dispatcher(dispatcher):
                for signature in signatures[0] if isinstance(signatures[0], list) else signatures:
                    dispatcher.compile(signature)
                dispatcher.disable_compile()
        return dispatcher

    return decorate


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A view that cannot be written: for a loop that is called with arrays of both kinds, and compiled for each."""
    view = array.view()
    view.flags.writeable = False
    return view


class _ForgivingCache(FunctionCache):
    """numba's cache of one function; what cannot be read is compiled, what cannot be written is left out.

    A process that does not find a function has its lock until it has compiled and kept it, so others wait for it, and
    the files of one function are never written by two.

    Attributes
    ----------
    lock
        Held while the function is compiled.
    """

    def __init__(self, function: Any) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self.lock = LoopLock(Path(str(self.cache_path)) / f"{self._impl.filename_base}.lock")

    def has(self, sig: Any, target_context: Any) -> bool:
        """Whether the function is kept for these types; what is kept may be damaged."""
        with contextlib.suppress(Exception):
            key = self._index_key(sig, target_context.codegen())  # type: ignore[no-untyped-call]
            return key in self._cache_file._load_index()  # type: ignore[no-untyped-call]
        return False

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        _load_array_functions()
        found = self._load(sig, target_context)
        if found is None:
            self.lock.acquire()
            found = self._load(sig, target_context)  # who had the lock has kept it, perhaps
            if found is not None:
                self.lock.release()
        return found

    def _load(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception:  # a damaged file raises of every kind
            with contextlib.suppress(Exception):
                self.flush()  # type: ignore[no-untyped-call]
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]
        except Exception as error:
            _say_once(f"compiled loops cannot be kept in {self.cache_path} ({error})")
        finally:
            self.lock.release()


def is_kept(loop: Any, types: tuple[Any, ...]) -> bool:
    """Whether a loop needs not be compiled for arguments of these numba types, because it is on the disk."""
    cache = getattr(loop, "_cache", None)
    return isinstance(cache, _ForgivingCache) and cache.has(types, loop.targetctx)


def compile_alone(loop: Any, types: tuple[Any, ...]) -> bool:
    """Compile a loop for these types and keep it; returns False at once if another process is doing so.

    Raises
    ------
    Exception
        Whatever numba raises.
    """
    cache = getattr(loop, "_cache", None)
    if not isinstance(cache, _ForgivingCache):
        return False
    if not cache.lock.acquire(0):
        return False
    try:
        loop.compile(types)
    finally:
        cache.lock.release()
    return True


@functools.cache
def _load_array_functions() -> None:
    """Load what numba loads before it compiles, without the scipy that it would look for; no loop here needs BLAS.

    Code that does need it finds it: numba is told that it is there, and imports scipy when such code is compiled.
    """
    with contextlib.suppress(ImportError), hidden("scipy"):
        from numba.np import arraymath

        if hasattr(arraymath, "_HAVE_BLAS"):
            arraymath._HAVE_BLAS = is_installed("scipy")


def _cache_of(function: Any) -> Any:
    """The cache of a function; None where there is no folder for it."""
    with contextlib.suppress(RuntimeError):  # neither the package's folder nor the user's can be written
        return _ForgivingCache(function)
    folder = private_folder()
    if folder is None:
        _say_once("there is no folder in which compiled loops can be kept; set NUMBA_CACHE_DIR to one")
        return None
    _say_once(f"compiled loops are kept in {folder}: neither fae's own folder nor a home folder can be written", end="")
    with contextlib.suppress(RuntimeError), _cache_folder(str(folder / "numba")):
        return _ForgivingCache(function)
    return None


@contextlib.contextmanager
def _cache_folder(folder: str) -> Iterator[None]:
    config = cast(Any, numba.config)
    before, config.CACHE_DIR = config.CACHE_DIR, folder
    try:
        yield
    finally:
        config.CACHE_DIR = before


@functools.cache
def private_folder() -> Path | None:
    """A folder of this user's alone below the temporary one, made if needed; None where there can be none.

    Compiled code is read from it and run, so it must be nobody else's.
    """
    try:
        folder = Path(tempfile.gettempdir()) / f"fae-{os.geteuid()}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
    except OSError:
        return None
    is_private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
    return folder if is_private and os.access(folder, os.W_OK | os.X_OK) else None


_said: list[str] = []


def _say_once(text: str, *, end: str = "; every command compiles them anew, which takes a minute") -> None:
    if not _said:
        _said.append(text)
        tell(text + end)


def _keep_other_caches() -> None:
    """Name folders for what triton and torch's compiler keep, where they would take a home folder that is not there."""
    import getpass

    home = os.path.expanduser("~")
    try:
        getpass.getuser()
        has_name = True
    except (KeyError, OSError):
        has_name = False
    wanted = {} if os.access(home, os.W_OK) else {"TRITON_CACHE_DIR": "triton", "CUDA_CACHE_PATH": "cuda"}
    if not has_name:
        wanted["TORCHINDUCTOR_CACHE_DIR"] = "inductor"
    folder = private_folder() if wanted else None
    for name, part in wanted.items() if folder else ():
        os.environ.setdefault(name, str(folder / part))  # type: ignore[operator]


_keep_other_caches()
