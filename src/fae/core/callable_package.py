"""A package that can be called: `fae.plan` is both the package of a verb and the verb's function."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package whose call is that of the function of the same name in its module of the same name.

    ``fae.plan(...)`` calls ``fae.plan.plan.plan``, also after a module of the package was imported, which makes
    ``fae.plan`` the package.
    """

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the function."""
        name = self.__name__.rpartition(".")[2]
        return getattr(importlib.import_module(f"{self.__name__}.{name}"), name)(*arguments, **named)


def make_callable(name: str) -> None:
    """Make the package of this dotted name callable; to be called by its ``__init__``."""
    sys.modules[name].__class__ = CallablePackage
