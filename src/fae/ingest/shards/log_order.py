"""Put what was read of shards together in log order, and read again what the shards before it make another.

Four things flow from input to input: where a record begins (a line end may be inside a quoted value), what the times
of the log are, the days of a log that is split by days, and the first lists that are looked at for brackets. A shard is
read without them. Here each shard is compared with what the one before it left, and read again from there where it
differs, which is seldom. An error of a shard is one only then, with the line that it has in its file. What is wrong
with a file as a whole is an error of none of its shards: such a file is read once more in one piece, which says it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fae.ingest.config import LogConfig
from fae.ingest.notes.dense_facts import DenseFacts
from fae.ingest.provisional_ids import ColumnEncoder
from fae.ingest.readers.line_blocks import LINE_END as LF
from fae.ingest.readers.line_blocks import open_raw
from fae.ingest.readers.record_blocks import LINE_END as CRLF
from fae.ingest.readers.span import WHOLE_FILE
from fae.ingest.shards.shard_cuts import Shard
from fae.ingest.shards.shard_files import read_part
from fae.ingest.shards.shard_reading import ShardTask, read_rows
from fae.ingest.splits import SplitFinder

_LOOK_BYTES = 1 << 22


LOOKED = 1 << 30
"""Lists that a shard is told were looked at for brackets before it."""


def start_behind() -> dict[str, Any]:
    """What a shard that is not the first of a log is read with."""
    return {"printed": LOOKED, "time": {}, "day": ""}


class LogOrder:
    """Follows the parts of a log in order.

    Parameters
    ----------
    encoders
        Those of the whole log; how their lists are printed is kept up to date.
    finder
        Finds the splits of the whole log.

    Attributes
    ----------
    parts
        The parts so far: folder and facts.
    time
        See `TimeKeys.state`; empty where the log has no times.
    """

    def __init__(self, config: LogConfig, encoders: Sequence[ColumnEncoder], finder: SplitFinder) -> None:
        self._config, self._encoders, self._finder = config, encoders, finder
        self._dense = DenseFacts(len(config.dense_columns()))
        self._source, self._stop = -1, 0
        self._unseen: set[str] = set()
        self.time: dict[str, Any] = {}
        self.parts: list[tuple[Path, dict[str, Any]]] = []

    @property
    def dense(self) -> dict[str, Any]:
        """See `DenseFacts.state`."""
        return self._dense.state

    def start(self) -> dict[str, Any]:
        """What the log is so far, for the next shard."""
        printed = [dict(encoder.printed.state) for encoder in self._encoders]
        return {"printed": printed, "time": self.time, "day": self._finder.state["day"]}

    def add(self, shard: Shard, task: ShardTask, facts: dict[str, Any]) -> None:
        """Take the next part, and read it again where it does not follow.

        Raises
        ------
        LogError
            The first error of the log.
        """
        is_first = shard.source != self._source
        if is_first:
            self._source, self._unseen = shard.source, {*self._config.wanted_columns()}
            self._finder.start_file(task.source.role)
        if "error" in facts or not self._follows(facts, is_first):
            task = self._with_start(task, is_first)
            facts = read_part(task.path) or read_rows(task)
        self._take(task, facts)
        self._unseen &= {*facts.get("unseen", ())}
        self.parts.append((task.path, facts))
        if shard.span.end is None and not shard.span.is_whole:
            self._check_whole(task)

    def _check_whole(self, task: ShardTask) -> None:
        """Read a file as one shard where none of its shards can say what is wrong with it."""
        if self._unseen or not self._finder.file_sizes[-1]:
            path = task.path.with_name(f"{task.path.name}-whole")
            read_rows(dataclasses.replace(task, span=WHOLE_FILE, start=start_behind(), path=path))

    def _follows(self, facts: dict[str, Any], is_first: bool) -> bool:
        state = facts["state"]
        kinds = {found["kind"] for found in (self.time, state.get("time") or {}) if found.get("kind")}
        has_unseen_lists = any(
            there["has_texts"] and here.printed.is_looking
            for here, there in zip(self._encoders, state["printed"], strict=True)
            if there["seen"] >= LOOKED
        )
        return (
            (is_first or facts["begin"] == self._stop)
            and len(kinds) < 2
            and not has_unseen_lists
            and state["splits"].get("first_day", self._finder.state["day"]) >= self._finder.state["day"]
        )

    def _with_start(self, task: ShardTask, is_first: bool) -> ShardTask:
        """The task with all that is known before the shard."""
        span, start = task.span, self.start()
        if not is_first and self._config.format != "parquet":
            text_lines = CRLF if self._config.format in ("csv", "avazu") else LF
            first_line = 1 + count_lines(task.source.path, self._stop, text_lines)
            span = dataclasses.replace(span, begin=self._stop, is_exact=True, first_line=first_line)
        known = hashlib.blake2b(json.dumps([span.begin, start]).encode(), digest_size=8).hexdigest()
        return dataclasses.replace(task, span=span, start=start, path=task.path.with_name(f"{task.path.name}-{known}"))

    def _take(self, task: ShardTask, facts: dict[str, Any]) -> None:
        state = facts["state"]
        for encoder, printed in zip(self._encoders, state["printed"], strict=True):
            if printed["seen"] < LOOKED:
                encoder.printed.state = printed
            else:
                encoder.printed.state["several"] |= printed["several"]
        if found := state.get("time"):
            self.time = {**found, **self.time, "whole": bool(found["whole"] and self.time.get("whole", True))}
        self._dense.add(np.array(state["dense"]["vanished"], np.int64), np.array(state["dense"]["largest"]))
        self._finder.add_part(state["splits"])
        self._stop = min(facts["stop"], task.source.num_bytes)


def count_lines(path: Path, stop: int, line_end: re.Pattern[bytes]) -> int:
    """Number of line ends in the first `stop` bytes of a file."""
    count, left, held = 0, stop, b""
    with open_raw(path) as raw:
        while left:
            block = bytes(raw.read(min(_LOOK_BYTES, left)))
            if not block:
                break
            left -= len(block)
            block = held + block
            held = b"\r" if block.endswith(b"\r") and left else b""
            count += len(line_end.findall(block[: len(block) - len(held)]))
    return count
