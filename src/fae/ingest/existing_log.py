"""Use an existing columnar log instead of ingesting a raw one: ``[log] format = "columnar"``.

The log is read in place, never copied and never written to. It is identified by its fingerprint, so it may be moved.
"""

from __future__ import annotations

from pathlib import Path

from fae.artifacts.columnar_log import FORMAT_VERSION, KIND, ColumnarLog, feature_tables, model_features
from fae.artifacts.manifest import Plan
from fae.core.errors import ArtifactError, LogError, RecipeError
from fae.core.files import MANIFEST
from fae.ingest.config import LogConfig

COMMAND = "fae synthetic --columnar --out RUN"
_NAME_ONE = (
    f"name the log/ folder of a run: `{COMMAND}` makes one without text, `fae ingest RECIPE.toml` one from a raw log"
)


def find_existing(config: LogConfig, base: Path) -> Path:
    """The folder that ``[log] train`` names: a columnar log, or a run folder with one in it.

    Parameters
    ----------
    base
        The recipe's folder, to which a relative name is relative.

    Raises
    ------
    LogError
        If there is no such folder, or no columnar log in it.
    """
    (name,) = (config.train,) if isinstance(config.train, str) else config.train
    place = (base / Path(name).expanduser()).absolute()
    where = f'[log] format = "columnar", train = {name!r}:'
    if place.is_file():
        raise LogError(f"{where} {place} is a file, and a columnar log is a folder; {_NAME_ONE}, or set [log] format")
    if not place.is_dir():
        raise LogError(f"{where} there is no folder {place}; {_NAME_ONE}")
    for folder in (place, place / KIND):
        if (folder / MANIFEST).is_file():
            break
    else:
        raise LogError(f"{where} {place} holds no columnar log (no {MANIFEST} in it or in its {KIND}/); {_NAME_ONE}")
    return folder


def open_existing(config: LogConfig, base: Path) -> ColumnarLog:
    """Open the log that ``[log] train`` names.

    Raises
    ------
    LogError
        As `find_existing`; also if the folder is another artifact, or damaged.
    RecipeError
        If the recipe names other columns than the log has. (A recipe may name none, and uses the log's.)
    """
    folder = find_existing(config, base)
    try:
        log = ColumnarLog(folder, command=COMMAND)
    except ArtifactError as error:
        # The folder may belong to another run, so the advice to delete it is cut off.
        raise LogError(f"[log] train: {str(error).split('; ')[0]}; {_NAME_ONE}") from error
    _check_columns(log, config)
    return log


def existing_plan(log: ColumnarLog) -> Plan:
    """The plan that the existing log was made from."""
    made = log.manifest
    return Plan(
        kind=KIND, format_version=FORMAT_VERSION, parameters=made.parameters, parents=made.parents, command=COMMAND
    )


def _check_columns(log: ColumnarLog, config: LogConfig) -> None:
    parts = model_features(log.features)
    there = [(f.name, f.length, f.pooling if f.length > 1 else "") for f in parts]
    here = [(c.name, c.max_length, c.pooling if c.max_length > 1 else "") for c in config.categorical_columns()]
    names_there, names_here = [name for name, *_ in there], [name for name, *_ in here]
    advice = "set it to that, or leave it out and take the log's own"
    if here and names_here != names_there:
        raise RecipeError(f"[log] categorical = {names_here!r}, and {log.path} has {names_there!r}; {advice}")
    for named, found in zip(here, there, strict=False):
        if named != found:
            raise RecipeError(
                f"[log] categorical {named[0]}: max_length = {named[1]} and pooling = {named[2] or 'any'!r}, and "
                f"{log.path} has {found[1]} and {found[2] or 'any'!r}; {advice}"
            )
    tables = [log.features[table].name for table in feature_tables(log.features)]
    for column, part, table in zip(config.categorical_columns(), parts, tables, strict=False):
        if (column.table or column.name) != table:
            has = f"table = {table!r}" if part.name != table else "a table of its own"
            raise RecipeError(
                f"[log] categorical {column.name}: table = {column.table!r}, and {log.path} has {has}; {advice}"
            )
    if config.dense and list(config.dense_columns()) != list(log.dense_names):
        raise RecipeError(
            f"[log] dense = {list(config.dense_columns())!r}, and {log.path} has {list(log.dense_names)!r}; {advice}"
        )
