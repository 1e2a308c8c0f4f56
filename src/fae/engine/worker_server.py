"""Imported by the server from which workers are forked, before anything else: it must never have threads."""

from __future__ import annotations

from fae.engine.worker_limits import limit_settings

limit_settings()
