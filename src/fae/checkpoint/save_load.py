"""Write and load checkpoints: tables in vocabulary order, dense weights, optimizer state, and where training is.

Vocabulary order makes a checkpoint independent of hot set, budget and placement: it loads under any other. It is
written whole or not at all (`fae.artifacts.manifest`); ``artifacts/formats/checkpoint.md`` describes it by the byte.
"""

from __future__ import annotations

import json
import os
import re
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fae.artifacts.checkpoint import COMMAND, FORMAT_VERSION, KIND, open_checkpoint, read_progress, read_tables
from fae.artifacts.checksums import check_contents, damaged, describe_written, file_checksum
from fae.artifacts.manifest import Manifest, Plan, write_artifact
from fae.artifacts.schema import Fields
from fae.core.errors import ArtifactError
from fae.core.threads import num_threads
from fae.embedding.base import Embeddings

__all__ = [
    "COMMAND", "FORMAT_VERSION", "KIND", "load_dense", "load_tables", "open_checkpoint", "read_progress",
    "save_checkpoint",
]  # fmt: skip


DENSE = "dense.safetensors"
_MOST_WRITERS = 8


def save_checkpoint(
    path: Path,
    plan: Plan,
    *,
    model: nn.Module,
    dense_optimizer: torch.optim.Optimizer,
    embeddings: Embeddings,
    progress: dict[str, Any],
    before_replacing: Callable[[], None] | None = None,
) -> None:
    """Write everything that training needs to continue.

    Parameters
    ----------
    embeddings
        No stream of them may be open: then every update is in place.
    progress
        JSON values for ``progress.json``.
    before_replacing
        Called when it is whole, right before it takes the place of one that is there.

    Raises
    ------
    ArtifactError
        If it cannot be written.
    """
    summary = {
        "tables": [
            {"name": feature.name, "num_embeddings": feature.num_embeddings, "embedding_dim": dim}
            for feature, dim in zip(embeddings.layout.features, embeddings.layout.embedding_dims, strict=True)
        ],
        "row_steps": embeddings.steps,
    }
    files: dict[str, dict[str, Any]] = {}
    with write_artifact(path, plan, summary, files=files, before_replacing=before_replacing) as folder:
        (folder / "tables").mkdir()
        (folder / "progress.json").write_text(json.dumps(progress, sort_keys=True))
        checksums = {folder / "progress.json": int(file_checksum(folder / "progress.json"), 16)}
        with _FilesBehind(checksums) as behind:
            behind.save(folder / DENSE, _dense_tensors(model, dense_optimizer))
            for table in range(len(embeddings.layout.features)):
                weight, state = embeddings.export_table(table)
                tensors = {"weight": weight.contiguous(), "state": state.contiguous()}
                behind.save(folder / "tables" / f"{table}.safetensors", tensors)
        files.update(describe_written(folder, checksums))


class _FilesBehind:
    """Files of tensors, written and summed on threads of their own while the next tensors are collected.

    Tensors that wait to be written take no more memory than the largest of them.

    Parameters
    ----------
    checksums
        Takes the crc32 of every file.
    """

    def __init__(self, checksums: dict[Path, int]) -> None:
        self._checksums = checksums
        self._pool = ThreadPoolExecutor(max_workers=min(_MOST_WRITERS, num_threads()), thread_name_prefix="fae-save")
        self._waiting: deque[tuple[int, Future[None]]] = deque()
        self._largest = 0

    def save(self, path: Path, tensors: dict[str, Tensor]) -> None:
        """Write a file some time later; the tensors must not change."""
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        self._largest = max(self._largest, size)
        while self._waiting and sum(each for each, _ in self._waiting) + size > self._largest:
            self._waiting.popleft()[1].result()
        self._waiting.append((size, self._pool.submit(self._write, path, tensors)))

    def _write(self, path: Path, tensors: dict[str, Tensor]) -> None:
        _save_tensors(path, tensors)
        tensors.clear()
        self._checksums[path] = int(file_checksum(path), 16)
        with path.open("rb") as file:
            os.fsync(file.fileno())  # begun now, it is over when the last file is written

    def __enter__(self) -> _FilesBehind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        while kind is None and self._waiting:
            self._waiting.popleft()[1].result()


def _save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file; a write that the system refuses raises `OSError` with its number, as elsewhere."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        if number := re.search(r"(?:os error |code: )(\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        raise


def load_tables(path: str | Path, embeddings: Embeddings) -> None:
    """Load rows, their state and step count into embeddings of any placement, budget and hot set.

    Raises
    ------
    ArtifactError
        If tables differ in name, shape or optimizer state.
    """
    path = Path(path)
    expected = [
        (feature.name, feature.num_embeddings, dim)
        for feature, dim in zip(embeddings.layout.features, embeddings.layout.embedding_dims, strict=True)
    ]
    manifest = open_checkpoint(path)
    found = read_tables(manifest, path)
    for wanted, there in zip(expected, found, strict=False):
        if wanted != there:
            raise ArtifactError(
                f"{path} has table {there[0]!r} of {there[1]} rows x {there[2]}, expected {wanted[0]!r} of {wanted[1]} "
                f"x {wanted[2]}; train again with `{COMMAND}`"
            )
    if len(expected) != len(found):
        raise ArtifactError(f"{path} has {len(found)} tables, expected {len(expected)}; train again with `{COMMAND}`")
    for table, feature in enumerate(embeddings.layout.features):
        weight, state = load_table(path, manifest, table)
        width = embeddings.optimizer.state_width(embeddings.layout.embedding_dims[table])
        if state.shape[1] != width:
            raise ArtifactError(
                f"{path} carries {state.shape[1]} floats of optimizer state a row for {feature.name!r}, "
                f"{embeddings.optimizer.name} needs {width}; set [train] optimizer to what trained it"
            )
        embeddings.import_table(table, weight, state)
    embeddings.steps = row_steps(manifest, path)


def row_steps(manifest: Manifest, path: Path, *, command: str = COMMAND) -> int:
    """Steps that the row optimizer has made; older checkpoints are of optimizers that do not count."""
    summary = Fields(manifest.summary, "summary", path, command)
    return summary.whole("row_steps") if "row_steps" in summary else 0


def load_table(path: Path, manifest: Manifest, table: int, *, command: str = COMMAND) -> tuple[Tensor, Tensor]:
    """Weight ``[N, D]`` and optimizer state ``[N, width]`` of one table, float32, as they were saved.

    Raises
    ------
    ArtifactError
        If the file is damaged, or holds other shapes or types than the manifest says.
    """
    _, num_rows, dim = read_tables(manifest, path, command=command)[table]
    name = f"tables/{table}.safetensors"
    tensors = _load_tensors(path, manifest, name, command)
    try:
        weight, state = tensors["weight"], tensors["state"]
    except KeyError as error:
        raise damaged(path, name, command, f"it has no {error.args[0]}") from error
    fits = tuple(weight.shape) == (num_rows, dim) and state.dim() == 2 and len(state) == num_rows
    if not fits or {weight.dtype, state.dtype} != {torch.float32}:
        raise damaged(
            path, name, command,
            f"it holds {tuple(weight.shape)} and {tuple(state.shape)} of {weight.dtype}, expected {num_rows} rows of "
            f"{dim} and their state in float32",
        )  # fmt: skip
    return weight, state


def _load_tensors(path: Path, manifest: Manifest, name: str, command: str) -> dict[str, Tensor]:
    if name not in manifest.files:
        raise damaged(path, name, command)
    check_contents(path, manifest.files, name, command=command)
    try:
        return load_file(path / name)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise damaged(path, name, command, " ".join(str(error).split())) from error


def load_dense(
    path: str | Path,
    model: nn.Module,
    dense_optimizer: torch.optim.Optimizer | None = None,
    *,
    random_streams: bool = True,
) -> None:
    """Load the dense weights into `model`.

    Parameters
    ----------
    dense_optimizer
        Takes their optimizer state; None loads weights only, and no random streams.
    random_streams
        Whether torch's random generators continue from the checkpoint.

    Raises
    ------
    ArtifactError
        If the file is damaged, or its tensors do not fit the model or the optimizer.
    """
    path = Path(path)
    tensors = _load_tensors(path, open_checkpoint(path), DENSE, COMMAND)
    try:
        _set_dense(tensors, model, dense_optimizer, random_streams=random_streams)
    except (RuntimeError, ValueError, TypeError, KeyError) as error:  # torch names the parameter
        raise ArtifactError(
            f"the dense weights of {path} do not fit the model: {' '.join(str(error).split())}; set [model] and "
            "[train] optimizer to what trained it"
        ) from error


def _set_dense(
    tensors: dict[str, Tensor], model: nn.Module, dense_optimizer: torch.optim.Optimizer | None, *, random_streams: bool
) -> None:
    model.load_state_dict(
        {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
    )
    if dense_optimizer is None:
        return
    groups = dense_optimizer.state_dict()["param_groups"]
    parameters = [parameter for group in dense_optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".", 2)
            if int(number) >= len(parameters) or (key != "step" and tensor.shape != parameters[int(number)].shape):
                raise ValueError(f"{name} has the shape {tuple(tensor.shape)}")
            state.setdefault(int(number), {})[key] = tensor
    dense_optimizer.load_state_dict({"state": state, "param_groups": groups})
    if not random_streams:
        return
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])


def _dense_tensors(model: nn.Module, dense_optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for parameter, values in dense_optimizer.state_dict()["state"].items():
        for key, value in values.items():
            tensors[f"optimizer.{parameter}.{key}"] = torch.as_tensor(value)
    tensors["random.cpu"] = torch.get_rng_state()
    if any(tensor.is_cuda for tensor in tensors.values()):
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    # A clone each: safetensors refuses tensors that share memory (tied weights).
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
