"""Write a finished run as a folder that works without FAE: the options, and the folder as a whole or not at all."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

from fae.core.errors import ArtifactError
from fae.core.files import MANIFEST, cannot_write, remove_folder, replace_folder, temporary_path
from fae.core.progress import say, task
from fae.core.units import format_bytes
from fae.core.whole_files import read_json, write_json
from fae.exporting.changed_rows import DELTA_KIND, KIND, check_earlier, write_changes
from fae.exporting.exported_folder import ExportOptions, describe_exported, write_exported
from fae.exporting.onnx_model import require_onnx
from fae.exporting.standalone.apply import apply_changes
from fae.exporting.standalone.scoring.input_text import InputError
from fae.exporting.table_files import FILE_BYTES, RowType
from fae.run.scored_run import find_finished


def export(
    run: str | Path, folder: str | Path, *, dtype: RowType = "float32", onnx: bool = False, triton: bool = False,
    since: str | Path | None = None, file_bytes: int = FILE_BYTES, replace: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Write a finished run as a folder that scores raw inputs without FAE; docs/guide/export.md.

    Parameters
    ----------
    run
        Folder of the finished run.
    folder
        The folder to write; it appears when it is complete.
    dtype, onnx, triton, file_bytes
        As in `ExportOptions`.
    since
        Folder of an earlier export of the same line of runs: only what has changed since is written, with an
        ``apply.py`` that makes the whole folder of both.
    replace
        Whether an exported folder that is there already is replaced.

    Returns
    -------
    dict
        The content of manifest.json without the single files, and ``folder``, ``num_files``, ``bytes``.

    Raises
    ------
    FaeError
        If the run is not finished or has no vocabulary, the folder is there, or it cannot be written.
    """
    options = ExportOptions(dtype=dtype, onnx=onnx, triton=triton, file_bytes=file_bytes)
    target = Path(folder).expanduser()
    found = find_finished(run)
    check_target(target, replace=replace)
    if onnx:
        require_onnx()
    earlier = None if since is None else Path(since).expanduser()
    base = None if earlier is None else check_earlier(earlier, dtype)
    if earlier is not None:
        _check_apart(target, earlier)
    temporary = temporary_path(target)
    whole = temporary if earlier is None else temporary_path(target.with_name(f"{target.name}.whole"))
    try:
        for path in {temporary, whole}:
            remove_folder(path)
        whole.mkdir(parents=True)
        manifest = write_exported(found, whole, options)
        if earlier is not None and base is not None:
            manifest = _write_since(earlier, base, whole, temporary)
        replace_folder(temporary, target)
    except OSError as error:
        raise ArtifactError(str(cannot_write(target, error)).removesuffix(" with --out")) from error
    finally:
        for path in {temporary, whole}:
            remove_folder(path)
    total = sum(each["bytes"] for each in manifest["files"].values())
    script = "check.py" if earlier is None else "apply.py"
    line = f"python {shlex.quote(f'{target}/{script}')}{'' if earlier is None else f' {shlex.quote(str(earlier))} OUT'}"
    say(f"export: {len(manifest['files'])} files, {format_bytes(total)}: {target}; next: {line}")
    facts = {key: value for key, value in manifest.items() if key not in ("files", "result", "copied")}
    return {**facts, "folder": str(target), "num_files": len(manifest["files"]), "bytes": total}


def check_target(target: Path, *, replace: bool) -> None:
    """Refuse a folder that is there, unless it is an exported one that may be replaced.

    Raises
    ------
    ArtifactError
        If so.
    """
    if target.name in ("", ".."):
        raise ArtifactError(f"{target} has no name of its own; give the folder a name")
    if not target.exists() and not target.is_symlink():
        return
    if target.is_dir() and not any(target.iterdir()):
        return
    try:
        ours = read_json(target / MANIFEST).get("kind") in (KIND, DELTA_KIND)
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        raise ArtifactError(f"{target} is there and is no exported folder; choose another one")
    if not replace:
        raise ArtifactError(f"{target} is there already; give --replace to write it anew, or choose another folder")


def _check_apart(target: Path, earlier: Path) -> None:
    """Refuse to write changes over, into or around the folder that they are changes of."""
    new, old = target.resolve(), earlier.resolve()
    if new == old or new in old.parents or old in new.parents:
        raise ArtifactError(
            f"{target} is the folder of --since {earlier}, or one is in the other, and its rows are needed to apply "
            "the changes; choose another folder"
        )


def _write_since(earlier: Path, base: dict[str, Any], whole: Path, folder: Path) -> dict[str, Any]:
    """Write the changes into `folder`, and apply them once: together with `earlier` they must be `whole`."""
    folder.mkdir()
    manifest = write_changes(earlier, whole, folder, base)
    manifest["files"] = describe_exported(folder)
    write_json(folder / MANIFEST, manifest)
    tried = whole.with_name(f"{whole.name}.tried")
    remove_folder(tried)
    try:
        with task("export: applying the changes once"):
            apply_changes(folder, earlier, tried)
        if (tried / MANIFEST).read_bytes() != (whole / MANIFEST).read_bytes():
            raise ArtifactError(f"the changes since {earlier} do not give the whole export; this is a defect of fae")
    except InputError as error:
        raise ArtifactError(f"{error}; export the whole folder, without --since") from error
    finally:
        shutil.rmtree(tried, ignore_errors=True)
    return manifest
