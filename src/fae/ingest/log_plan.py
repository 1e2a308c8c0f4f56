"""What a columnar log will be made from: its files named by their content, and so the name of the log.

Imports nothing that reads a log: naming the files takes all cores, and the rest of ingest is imported meanwhile.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fae.artifacts.columnar_log import FORMAT_VERSION, KIND, ColumnarLog
from fae.artifacts.manifest import Plan
from fae.core.progress import say
from fae.engine.engine import Engine
from fae.ingest.config import LogConfig
from fae.ingest.formats import about_text_bytes, ready_module
from fae.ingest.raw_files.absent_log import plan_of_absent, without_unreadable
from fae.ingest.raw_files.former_logs import log_parameters
from fae.ingest.raw_files.source_digests import are_digests_known, describe_sources, digest_sources
from fae.ingest.sources import AbsentFiles, MissingFilesError, SourceFile, check_sources, look_for_sources

COMMAND = "fae ingest RECIPE.toml"
_INGEST_MODULE = "fae.ingest.ingest"


def plan_ingest(
    config: LogConfig,
    *,
    base: Path,
    previous: Path | None = None,
    parent: ColumnarLog | None = None,
    engine: Engine | None = None,
) -> Plan:
    """The plan of the columnar log: what it will be made from.

    Parameters
    ----------
    base
        Folder to which relative names and globs are relative: the recipe's.
    previous
        Path of the log, made or not. Files that have not changed since it was made (path, size, modification time) are
        not read again to compute their digests.
    parent
        The log whose ids this one continues (`fae.ingest.continued_ids`).
    engine
        Is prepared to read the log, where it is not known which log that is: it will be one that is not there yet.

    Raises
    ------
    LogError
        If a name or glob matches no file, or a file is empty or named twice.
    """
    found = look_for_sources(config, base)
    sources = [each for each in found if isinstance(each, SourceFile)]
    error = next((each.error for each in found if isinstance(each, AbsentFiles)), None)
    if error is None:
        check_sources(config, sources)
        if engine is not None and not are_digests_known(config, sources):
            prepare_engine(engine, config, sources)
            # While files are read for their names, on threads without the lock that an import needs.
            threading.Thread(target=importlib.import_module, args=(_INGEST_MODULE,), name="fae-import").start()
        try:
            return plan_of(config, describe_sources(config, sources, digest_sources(sources, previous)), parent)
        except MissingFilesError as unreadable:
            found, error = without_unreadable(sources, unreadable), unreadable
    planned = plan_of_absent(found, previous, COMMAND, lambda files: plan_of(config, files, parent))
    if planned is None:
        raise error
    plan, line = planned
    say(f"ingest: {line}")
    return plan


def prepare_engine(engine: Engine, config: LogConfig, sources: Sequence[SourceFile]) -> None:
    """Say that these files will be read."""
    num_bytes = sum(source.num_bytes for source in sources)
    engine.prepare(about_text_bytes(config.format, num_bytes), ready_module(config.format))


def plan_of(config: LogConfig, files: Sequence[Mapping[str, Any]], parent: ColumnarLog | None) -> Plan:
    """The plan of the log of these files, as `describe_sources` describes them."""
    parameters = log_parameters(config, files)
    parents = {} if parent is None else {KIND: parent.manifest.fingerprint}
    return Plan(kind=KIND, format_version=FORMAT_VERSION, parameters=parameters, parents=parents, command=COMMAND)
