"""Imported by the server from which workers are forked, before anything else: it must never have threads."""

from __future__ import annotations

from fae.core.compiling.hidden_packages import hidden, look_for_pandas
from fae.engine.worker_limits import limit_settings

limit_settings()
with hidden("pandas"):  # no task uses it
    look_for_pandas()
