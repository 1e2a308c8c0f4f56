"""Imported by the server from which workers are forked, so that what logs in Parquet need is loaded once."""

from __future__ import annotations

import fae.ingest.shards.shard_reading  # noqa: F401
from fae.ingest.shards.reading_loops import load_reading_loops

load_reading_loops("parquet")
