"""Before a run: memory, coverage, step time and a verdict, from a sample."""

from fae.core.callable_package import make_callable

make_callable(__name__)
