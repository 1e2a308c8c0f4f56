"""The first state of a run that continues another: its rows, dense weights, optimizer states and step counts.

`fae.checkpoint.parent` has found and checked the parent; `move_rows` does the same within a process, from one hot set
to the next. A row of a known id starts with the bytes of the parent, weight and optimizer state alike, whatever tier it
was in and comes into. A row that the parent does not have starts as in a fresh table of the new size
(`fae.streaming.row_store.initial_rows`), with state zero. Random streams are those of the new run.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fae.artifacts.columnar_log import FeatureSchema
from fae.artifacts.lineage import moved_reserved_id
from fae.checkpoint.parent import ParentRun
from fae.checkpoint.save_load import load_dense, load_table, row_steps
from fae.core.errors import ArtifactError
from fae.embedding.base import Embeddings
from fae.streaming.row_store import initial_chunks, initial_rows


def load_parent(
    parent: ParentRun,
    model: nn.Module,
    dense_optimizer: torch.optim.Optimizer,
    embeddings: Embeddings,
    *,
    seed: int,
) -> None:
    """Start from a parent that fits (`ParentRun.check_fits`) and whose vocabulary the log continues.

    Takes one table at a time into host memory.

    Parameters
    ----------
    seed
        Seed of the first values of new rows.

    Raises
    ------
    ArtifactError
        If a file is damaged, or the dense weights are of another model.
    """
    for table, (old, new) in enumerate(zip(parent.log.features, embeddings.layout.features, strict=True)):
        weight, state = load_table(parent.checkpoint, parent.manifest, table, command=parent.command)
        if weight.shape != (old.num_embeddings, embeddings.layout.embedding_dims[table]):
            raise ArtifactError(
                f"{parent.checkpoint} has {tuple(weight.shape)} for {old.name!r}, and {parent.log.path} has "
                f"{old.num_embeddings} rows; name another run in [train] from"
            )
        width = embeddings.optimizer.state_width(weight.shape[1])
        if state.shape[1] != width:
            raise ArtifactError(
                f"{parent.checkpoint} carries {state.shape[1]} floats of optimizer state a row for {old.name!r}, "
                f"{embeddings.optimizer.name} needs {width}; set [train] optimizer to what trained it"
            )
        if new != old:
            weight, state = grown_table(weight, state, old, new, seed=seed)
        embeddings.import_table(table, weight, state)
    embeddings.steps = row_steps(parent.manifest, parent.checkpoint, command=parent.command)
    load_dense(parent.checkpoint, model, dense_optimizer, random_streams=False)


def move_rows(old: Embeddings, new: Embeddings, *, seed: int) -> None:
    """Copy every row of `old`, with its optimizer state, to its place in `new`: to re-calibrate without a restart.

    The two differ in their hot sets, and may differ in placement, budget and in rows that the log has shown since. No
    stream of `old` may be open: then all its updates are in place. Takes one table at a time into host memory, beside
    both; a process that lacks that memory goes through a checkpoint (``[train] from``).

    Parameters
    ----------
    old, new
        Embeddings of the same tables with the same row optimizer; `new` needs no first values.
    seed
        Seed of the first values of rows that `old` does not have.

    Raises
    ------
    ArtifactError
        If the tables are not the same ones, or the optimizers' states differ in form.
    """
    names = [[feature.name for feature in layout.features] for layout in (old.layout, new.layout)]
    if names[0] != names[1] or old.layout.embedding_dims != new.layout.embedding_dims:
        raise ArtifactError(
            f"rows of the tables {names[0]} cannot move to {names[1]}: names, order and widths must agree"
        )
    if old.optimizer.name != new.optimizer.name:
        raise ArtifactError(
            f"rows trained with {old.optimizer.name} carry its state and cannot continue under {new.optimizer.name}"
        )
    for table, (before, after) in enumerate(zip(old.layout.features, new.layout.features, strict=True)):
        if after.num_embeddings < before.num_embeddings:
            raise ArtifactError(
                f"the table {before.name!r} has {before.num_embeddings} rows, its successor {after.num_embeddings}: "
                "ids are appended, never taken away"
            )
        weight, state = old.export_table(table)
        if after != before:
            weight, state = grown_table(weight, state, before, after, seed=seed)
        new.import_table(table, weight, state)
    new.steps = old.steps


def grown_table(
    weight: Tensor, state: Tensor, old: FeatureSchema, new: FeatureSchema, *, seed: int
) -> tuple[Tensor, Tensor]:
    """The parent's table with the rows that it lacks.

    Parameters
    ----------
    weight, state
        ``[old.num_embeddings, D]`` and ``[old.num_embeddings, width]``, on the host.
    old, new
        The table before and after; `new` has at least as many rows.

    Returns
    -------
    tuple[Tensor, Tensor]
        Weight ``[new.num_embeddings, D]`` and state ``[new.num_embeddings, width]``.
    """
    known, dim = old.num_embeddings, weight.shape[1]
    moved = moved_reserved_id(old, new)
    fresh = known if moved is None else min(known, moved[0])
    larger = torch.empty((new.num_embeddings, dim))
    larger_state = torch.zeros((new.num_embeddings, state.shape[1]))
    for first, last in initial_chunks(new.num_embeddings):
        if last > fresh:
            values = initial_rows(seed, new.name, new.num_embeddings, dim, first, last)
            larger[first:last] = torch.from_numpy(values)
    larger[:fresh] = weight[:fresh]
    larger_state[:fresh] = state[:fresh]
    if moved is not None:  # an encoded table: the reserved id is the last one, before and after
        larger[moved[1]], larger_state[moved[1]] = weight[moved[0]], state[moved[0]]
    return larger, larger_state
