"""The run that another one continues: where ``[train] from`` points, and whether it fits.

Ingest appends to its vocabulary, and training starts from its rows (`fae.checkpoint.continuation`). A parent is a
*finished* training whose log is beside it and is the one it was trained on; one that does not fit is refused before any
work is done. It is known by its fingerprint, so moving it changes nothing. Reads manifests only, and imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fae.artifacts.checkpoint import KIND, open_checkpoint, read_progress
from fae.artifacts.columnar_log import KIND as LOG_KIND
from fae.artifacts.columnar_log import ColumnarLog
from fae.artifacts.lineage import check_same_columns
from fae.artifacts.manifest import Manifest
from fae.core.config import to_table
from fae.core.errors import ArtifactError, RecipeError
from fae.core.files import MANIFEST, broken_link
from fae.core.whole_files import read_json
from fae.models.config import model_config

if TYPE_CHECKING:
    from fae.ingest.config import LogConfig
    from fae.models.config import ModelConfig

LEAVE_OUT = "set it to that, or leave [train] from out to start anew"


@dataclass(frozen=True, kw_only=True)
class ParentRun:
    """A finished run to continue.

    Attributes
    ----------
    checkpoint
        Folder of its checkpoint.
    manifest
        The checkpoint's.
    log
        Its columnar log, of which the vocabulary and the schema are used.
    """

    checkpoint: Path
    manifest: Manifest
    log: ColumnarLog

    @property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of its checkpoint and of its log, by kind."""
        return {KIND: self.manifest.fingerprint, LOG_KIND: self.log.manifest.fingerprint}

    @property
    def command(self) -> str:
        """The command that makes it again."""
        return _command(self.checkpoint.parent)

    def check_continued_by(self, log: ColumnarLog) -> None:
        """Refuse a columnar log whose ids are not this run's with new ones behind them.

        Raises
        ------
        ArtifactError
            If it was not made by an ingest that continued this run's log.
        """
        if log.manifest.parents.get(LOG_KIND) != self.log.manifest.fingerprint:
            raise ArtifactError(
                f"{log.path} was not made to continue {self.log.path}, so its ids mean other values; ingest its raw "
                "files with the same [train] from, or leave [train] from out to start anew"
            )

    def check_fits(self, log: LogConfig | None, model: ModelConfig, optimizer: str) -> None:
        """Refuse a recipe whose rows or dense weights could not start from this run's. Reads manifests only.

        Parameters
        ----------
        log
            None for a columnar one: `check_continued_by`.

        Raises
        ------
        ArtifactError
            If something differs; it names the first such setting, with both values.
        """
        if log is not None:
            check_same_columns(self.log, **log.column_facts())
        made_with = self.manifest.parameters
        if not {"model", "train"} <= made_with.keys():
            raise ArtifactError(f"{self.checkpoint} was not made by `fae run` or `fae train`; continue it in Python")
        there, here = to_table(model_config(made_with["model"])), to_table(model)
        differences = [
            ("[train] optimizer", made_with["train"]["optimizer"], optimizer),
            # Dropout shapes no weight.
            *((f"[model] {key}", there.get(key), value) for key, value in here.items() if key != "dropout"),
        ]  # fmt: skip
        for key, old, new in differences:
            if old != new:
                raise ArtifactError(f"{key} = {new!r}, and {self.checkpoint} was trained with {old!r}; {LEAVE_OUT}")


def find_parent(name: str, base: Path) -> ParentRun:
    """Open the run or checkpoint that ``[train] from`` names.

    Parameters
    ----------
    name
        A run folder, or the checkpoint folder in it. A relative one starts from the recipe's folder and, where nothing
        is there, from the current one, which is where ``runs/`` is.
    base
        The recipe's folder.

    Raises
    ------
    RecipeError
        If nothing is there.
    ArtifactError
        If it is damaged, not finished, or its log is not beside it or is another one.
    """
    checkpoint = _find(name, base)
    run = checkpoint.parent
    command = _command(run)
    manifest = open_checkpoint(checkpoint, command=command)
    if not read_progress(checkpoint)["complete"]:
        raise ArtifactError(f"the training in {checkpoint} is not finished, so none can continue it; run `{command}`")
    if (led := broken_link(run / LOG_KIND)) is not None:
        raise ArtifactError(
            f"{run / LOG_KIND}, whose ids are to be continued, is a link to {led}, which is gone; run `{command}`"
        )
    if not (run / LOG_KIND / MANIFEST).exists():
        raise ArtifactError(
            f"there is no log in {run}, whose ids are to be continued; run `{command}` or, where that run took a "
            f"columnar log from elsewhere ([log] format), link it to {run / LOG_KIND}"
        )
    log = ColumnarLog(run / LOG_KIND, command=command)
    trained_on, here = manifest.parents.get(LOG_KIND, "unnamed"), log.manifest.fingerprint
    if trained_on != here:
        raise ArtifactError(
            f"{checkpoint} was trained on another log than {log.path} ({trained_on[:8]}, here is {here[:8]}); "
            f"run `{command}`"
        )
    return ParentRun(checkpoint=checkpoint, manifest=manifest, log=log)


def _command(run: Path) -> str:
    return f"fae run RECIPE.toml --out {run}"


def _is_other_artifact(place: Path) -> bool:
    """Whether a folder says that it is no checkpoint: a log, or what another stage made."""
    try:
        found = read_json(place / MANIFEST)
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("kind") != KIND


def _find(name: str, base: Path) -> Path:
    named = Path(name).expanduser()
    places = list(dict.fromkeys(((base / named).absolute(), named.absolute())))
    for place in places:
        for checkpoint in (place / KIND, place):
            if (checkpoint / MANIFEST).exists() and not (checkpoint == place and _is_other_artifact(place)):
                return checkpoint
    for place in places:
        if (place / MANIFEST).exists():
            run = place.parent
            there = f", {run}" if (run / KIND / MANIFEST).exists() else ""
            raise RecipeError(
                f"[train] from = {name!r}: {place} is not a trained run but one of its folders; name the run{there} or "
                f"its checkpoint, {run / KIND}"
            )
    raise RecipeError(
        f"[train] from = {name!r}: there is no trained run or checkpoint in {' or in '.join(map(str, places))}; "
        "name the --out of a finished `fae run`"
    )
