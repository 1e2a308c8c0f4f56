"""Mutated artifacts: whatever the bytes of a run folder are, a command refuses them in a line or gives the same result.

    python tests/campaigns/artifacts.py [--count 1000] [--seed 1] [--only 7] [--put-back]

A small run is made once, with an ingest that was interrupted, a log to continue it with, and a recipe that reads its
columnar log. Each case copies it, changes one file (bytes flipped, cut, lengthened, zeroed, exchanged; a leaf of a
JSON file replaced; an array's header or values edited; the file replaced by a folder, a link or a FIFO), and in half of
the cases makes checksums and digests right again, as a foreign maker would. Then one command reads it, with 6 GiB of
address space. A finding is: a traceback, a signal, no end, a status other than 0 and 2, a file outside the run folder
that was touched, or a result (scores and metrics of other files among them) that differs although no checksum was made
right.
"""

from __future__ import annotations

import atexit
import hashlib
import importlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "support"), str(Path(__file__).resolve().parent)]

from campaign import Ended, Tried, fork_fae, results, run_campaign, warm_up  # noqa: E402

RECIPE = """\
[log]
train = ["a.csv", "b.csv"]
label = "y"
categorical = ["user", {{ name = "item", min_frequency = 2 }}, {{ name = "tags", max_length = 3, pooling = "mean" }}, {{ name = "code", encoded = true }}]
dense = ["x"]
validation_fraction = 0.1

[model]
embedding_dim = 4
bottom_mlp = [8]
top_mlp = [8]

[hot]
budget = "{budget}"
small_table = "128B"
ring_depth = 2

[train]
batch_size = 16
epochs = {epochs}
early_stopping = 2
optimizer = "adagrad"
seed = 5
"""  # noqa: E501

KINDS = ("log", "profile", "hot_set", "packed", "checkpoint", "best")
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, -(2**63), 10**30, 1e308, -0.5, 1.5, "", "x", "../../outside/secret", [], [[]],
    {}, {"a": 1}, [1, 2], "\ud800", "9" * 400,
)  # fmt: skip

_world: Path | None = None


def world() -> Path:
    """The folder that every case copies; made at the first call."""
    global _world
    if _world is None:
        _world = Path(tempfile.mkdtemp())
        atexit.register(shutil.rmtree, _world, ignore_errors=True)
        _make_world(_world)
    return _world


def _make_world(folder: Path) -> None:
    draw = random.Random(7)

    def line(extra: int) -> str:
        item = min(int(draw.paretovariate(0.5)), 90) + extra
        tags = "|".join(f"t{draw.randrange(12)}" for _ in range(draw.randrange(5)))
        label = int(draw.random() < 0.3 + 0.3 * (item % 2))
        return f"{label},u{draw.randrange(150)},i{item},{tags},{item % 17},{draw.random():.3f}\n"

    header = "y,user,item,tags,code,x\n"
    for name, count, extra in (("a.csv", 250, 0), ("b.csv", 150, 0), ("next.csv", 300, 9)):
        (folder / name).write_text(header + "".join(line(extra) for _ in range(count)))
    (folder / "recipe.toml").write_text(RECIPE.format(budget="9KiB", epochs=2))
    (folder / "longer.toml").write_text(RECIPE.format(budget="9KiB", epochs=3))
    (folder / "wider.toml").write_text(RECIPE.format(budget="12KiB", epochs=2))
    text = RECIPE.format(budget="9KiB", epochs=1).replace('train = ["a.csv", "b.csv"]', 'train = "next.csv"')
    (folder / "next.toml").write_text(text.replace("[train]\n", '[train]\nfrom = "run"\n'))
    text = text.replace('"next.csv"', '"run/log"\nformat = "columnar"').replace("validation_fraction = 0.1\n", "")
    head, tail = text.split("categorical")[0], text.split("dense = ")[1]
    (folder / "columnar.toml").write_text(head.replace('label = "y"\n', "") + tail.split("\n", 1)[1])
    (folder / "outside").mkdir()
    (folder / "outside" / "secret").write_text("nobody writes here\n")
    warm_up(COMMANDS["run"], folder)
    _interrupt(folder)
    for name, command in COMMANDS.items():
        copy = folder / "expected" / name
        copy_world(folder, copy)
        ended = fork_fae(command, copy)
        _must(ended)
        (folder / f"{name}.json").write_text(json.dumps(results_of(name, copy, ended)))
        shutil.rmtree(copy)


def _interrupt(folder: Path) -> None:
    """An ingest that has read the first file and is stopped by a bad line in the second.

    It is not beside the finished run, whose log it would take.
    """
    good = (folder / "b.csv").read_text()
    (folder / "b.csv").write_text(good + "broken\n")
    ended = fork_fae(["ingest", "recipe.toml", "--out", "parts/part"], folder)
    assert ended.status == 2, ended
    (folder / "b.csv").write_text(good)


def results_of(command: str, folder: Path, ended: Ended) -> dict[str, str]:
    """Digests of what a command computed: files, and the metrics that it printed."""
    found = results(folder, WRITES.get(command))
    if command == "evaluate" and ended.status == 0:
        metrics = json.loads(ended.stdout)
        text = json.dumps({key: value for key, value in metrics.items() if key not in ("seconds", "files")})
        found["metrics"] = hashlib.blake2b(text.encode()).hexdigest()
    if command == "export":
        found.pop("out/golden.parquet", None)  # its inputs are raw ones where the raw files are still known
    return found


def _must(ended: Ended) -> None:
    assert ended.status == 0, ended.stderr


COMMANDS: dict[str, list[str]] = {
    "run": ["run", "recipe.toml", "--out", "run", "--device", "cpu"],
    "longer": ["run", "longer.toml", "--out", "run", "--device", "cpu"],
    "wider": ["run", "wider.toml", "--out", "run", "--replace", "--device", "cpu"],
    "next": ["run", "next.toml", "--out", "out", "--device", "cpu"],
    "columnar": ["run", "columnar.toml", "--out", "out", "--device", "cpu"],
    "part": ["ingest", "recipe.toml", "--out", "parts/part"],
    "report": ["report", "run", "--out", "report.html"],
    "predict": ["predict", "run", "next.csv", "--out", "out/scores.parquet", "--keep", "user", "--device", "cpu"],
    "evaluate": ["evaluate", "run", "next.csv", "--json", "--device", "cpu"],
    "shared": ["run", "recipe.toml", "--out", "out", "--device", "cpu"],
    "export": ["export", "run", "out"],
    "runs": ["runs", ".", "--json"],
}
READS = {
    "run": ("run",), "longer": ("run",), "wider": ("run",), "next": ("run",), "columnar": ("run/log",),
    "part": ("parts",), "report": ("run",), "predict": ("run",), "evaluate": ("run",),
    "shared": ("run/log",), "export": ("run",), "runs": ("run",),
}  # fmt: skip
WRITES = {
    "run": "run", "longer": "run", "wider": "run", "next": "out", "columnar": "out", "part": "parts", "predict": "out",
    "shared": "out", "export": "out",
}  # fmt: skip
FOLLOWED = ("ids.npy", "addresses.npy", "order_low.npy", "order_high.npy")
"""Arrays whose values are places in other arrays: their checksums are made right more often, as a foreign maker's."""
SIDE_FILES = (
    ".lock", "timings.json", "run.json", "log.sources.json", ".log.partial.json", "progress.json", "metrics.jsonl",
)  # fmt: skip
"""Files that no manifest covers, and the one in it that says how far a training is."""


def copy_world(source: Path, target: Path) -> None:
    """A fresh copy of what a case may change."""
    target.mkdir(parents=True)
    for name in ("run", "parts", "outside"):
        shutil.copytree(source / name, target / name)
    for path in source.iterdir():
        if path.suffix in (".csv", ".toml"):
            shutil.copy2(path, target / path.name)


def outside(folder: Path, writes: str) -> dict[str, Any]:
    """Everything outside the folder that a command writes to: content, kind, mode."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name.split("/")[0] in (writes, "report.html", "copy"):
            continue
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file():
            found[name] = (hashlib.blake2b(path.read_bytes()).hexdigest(), path.stat().st_mode)
        else:
            found[name] = path.stat().st_mode
    return found


def mutate(draw: random.Random, path: Path, folder: Path) -> str:
    """Change one file; return in which way."""
    data = bytearray(path.read_bytes())
    kinds: list[Callable[[], bytes | None]] = [
        lambda: _flip(draw, data), lambda: _flip(draw, data), lambda: bytes(data[: draw.randrange(len(data) + 1)]),
        lambda: bytes(data) + draw.randbytes(draw.choice([1, 4, 128, 4096])), lambda: _overwrite(draw, data, True),
        lambda: _overwrite(draw, data, False), lambda: b"", lambda: _replace_file(draw, path, folder),
    ]  # fmt: skip
    names = ["flip", "flip", "cut", "lengthen", "zero", "overwrite", "empty", "replace"]
    if path.suffix == ".json" or path.name.endswith(".partial.json"):
        kinds += 4 * [lambda: _odd_json(draw, bytes(data))]
        names += 4 * ["json"]
    if path.suffix == ".npy":
        kinds += 4 * [lambda: _odd_values(draw, bytes(data))] + 2 * [lambda: _odd_header(draw, bytes(data))]
        names += 4 * ["values"] + 2 * ["header"]
    if path.name in SIDE_FILES:
        kinds += 3 * [lambda: _replace_file(draw, path, folder)] + 2 * [lambda: b"[" * 100_000 + b"]" * 100_000]
        names += 3 * ["replace"] + 2 * ["nested"]
    index = draw.randrange(len(kinds))
    changed = kinds[index]()
    if changed is not None:
        path.write_bytes(changed)
    return names[index]


def _flip(draw: random.Random, data: bytearray) -> bytes:
    for _ in range(draw.choice([1, 1, 8]) if data else 0):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(data)


def _overwrite(draw: random.Random, data: bytearray, zero: bool) -> bytes:
    if data:
        start = draw.randrange(len(data))
        stop = min(len(data), start + draw.choice([1, 4, 64, 1024]))
        data[start:stop] = bytes(stop - start) if zero else draw.randbytes(stop - start)
    return bytes(data)


def _replace_file(draw: random.Random, path: Path, folder: Path) -> None:
    kind = draw.randrange(6)
    others = [other for other in path.parent.iterdir() if other.is_file() and other != path]
    if kind == 0 and others:
        shutil.copyfile(draw.choice(others), path)
        return
    path.unlink()
    if kind == 1:
        path.mkdir()
    elif kind == 2:
        path.symlink_to(folder / "outside" / "secret")
    elif kind == 3:
        os.mkfifo(path)
    elif kind == 4:
        path.symlink_to(path.name)  # a link to itself


def _odd_json(draw: random.Random, data: bytes) -> bytes:
    try:
        tree = json.loads(data)
    except ValueError:
        return data
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                walk(node[key])

    walk(tree)
    if not places:
        return data
    node, key = draw.choice(places)
    if draw.random() < 0.15:
        del node[key]
    else:
        node[key] = draw.choice(ODD_VALUES)
    if draw.random() < 0.02:
        return b"[" * 100_000 + b"]" * 100_000
    return json.dumps(tree, ensure_ascii=True).encode()


def _odd_values(draw: random.Random, data: bytes) -> bytes:
    import numpy as np

    try:
        array = np.load(io.BytesIO(data)).copy()
    except ValueError:
        return data
    if not array.size:
        return data
    flat = array.reshape(-1)
    value: Any = draw.choice([-1, -2, 2, 7, 10**6, 2**31 - 1, -(2**31), 2**62])
    if array.dtype.kind == "f":
        value = draw.choice([np.nan, np.inf, -np.inf, 1e38, -1.0])
    else:
        info = np.iinfo(array.dtype)
        value = min(max(value, info.min), info.max)
    for _ in range(draw.choice([1, 3, 50])):
        flat[draw.randrange(len(flat))] = value
    return data[:128] + array.tobytes()


def _odd_header(draw: random.Random, data: bytes) -> bytes:
    from fae.core.npy import npy_header

    dtype = draw.choice(["<i4", "<i8", "<f4", "<f8", "|u1", ">i4", "<i2"])
    shape = draw.choice([(), (1,), (2**40,), (7, 3), (400, 6), (3, 5, 2), (0,)])
    return npy_header(dtype, shape) + data[128:]


def make_right(folder: Path) -> None:
    """What a foreign maker does: sizes, checksums and digests of every manifest are those of the files."""
    from fae.artifacts.checksums import file_checksum
    from fae.artifacts.manifest import fingerprint

    for path in sorted(folder.rglob("manifest.json")):
        try:
            manifest = json.loads(path.read_text())
            for name, facts in manifest["files"].items():
                file = path.parent / name
                if file.is_file() and not file.is_symlink():
                    facts.update(bytes=file.stat().st_size, crc32=file_checksum(file))
            names = ("kind", "format_version", "parameters", "parents")
            manifest["fingerprint"] = fingerprint(*(manifest[name] for name in names))
            text = json.dumps({key: value for key, value in manifest.items() if key != "digest"})
            digest = hashlib.blake2b(json.dumps(json.loads(text), sort_keys=True).encode(), digest_size=16)
            path.write_text(json.dumps({**manifest, "digest": digest.hexdigest()}))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue


def case(draw: random.Random, folder: Path) -> Tried:
    """One mutation, one command."""
    base = world()
    copy = folder / "copy"
    copy_world(base, copy)
    command = draw.choice([name for name in COMMANDS for _ in range(1 if name == "report" else 3)])
    if command in ("run", "longer", "wider"):
        # What stays decides which stage reads the mutated file.
        for kind in draw.choice([(), ("checkpoint", "best"), ("checkpoint", "best", "packed")]):
            shutil.rmtree(copy / "run" / kind, ignore_errors=True)
        if draw.random() < 0.3:
            shutil.rmtree(copy / "run" / "hot_set")
    files = [path for name in READS[command] for path in sorted((copy / name).rglob("*")) if path.is_file()]
    side = [path for path in files if path.name in SIDE_FILES or path.parent.name == "best"]
    target = draw.choice(side if side and draw.random() < 0.2 else files)
    followed = [path for path in files if path.name in FOLLOWED]
    wild = bool(followed) and draw.random() < 0.1
    if wild:
        target = draw.choice(followed)
        target.write_bytes(_odd_values(draw, target.read_bytes()))
    shown = str(target.relative_to(copy))
    how = "values" if wild else mutate(draw, target, copy)
    mutated = target.read_bytes() if target.is_file() else None
    foreign = wild or (draw.random() < 0.5 and how != "replace")
    if foreign:
        make_right(copy)
    before = outside(copy, WRITES.get(command, "report.html"))
    ended = fork_fae(COMMANDS[command], copy, seconds=90)
    kind = f"{command}: {how}{' and checksums' if foreign else ''}"
    where = f"{shown} ({how}{', checksums right' if foreign else ''})"
    if found := ended.fault():
        return Tried(kind, found, f"{where}: {found}: {ended.last_line[:300]}")
    if outside(copy, WRITES.get(command, "report.html")) != before:
        return Tried(kind, "wrote outside", f"{where}: a file outside the run folder changed")
    if ended.status == 2:
        return Tried(kind, "refused in a line")
    expected = json.loads((base / f"{command}.json").read_text())
    found_now = results_of(command, copy, ended)
    if target.is_file() and target.read_bytes() == mutated:
        expected.pop(shown, None)  # nothing read it or wrote it, so nothing depends on it
    same = all(found_now.get(name) == digest for name, digest in expected.items())
    if not same and not foreign:
        return Tried(kind, "another result", f"{where}: status 0 and another result")
    return Tried(kind, "same result" if same else "another artifact, taken")


def _patch(name: str, value: Any, *modules: str) -> None:
    for module in modules:
        setattr(importlib.import_module(module), name, value)


def _nothing(*arguments: Any, **named: Any) -> None:
    return None


def _no_checks() -> None:
    _patch("check_files", _nothing, "fae.artifacts.checksums", "fae.artifacts.manifest")


def _sizes_alone() -> None:
    _patch("_check_content", _nothing, "fae.artifacts.checksums")


def _no_values() -> None:
    _patch("check_inputs", _nothing, "fae.profile.profile", "fae.pack.pack")
    _patch("check_batches", _nothing, "fae.run.train_stage")
    from fae.artifacts.log_contents import InputCheck

    InputCheck.ids = _nothing  # type: ignore[method-assign]


def _numpy_headers() -> None:
    import numpy as np

    def mapped(path: Path, name: str, *_: Any) -> Any:
        return np.load(path / name, mmap_mode="r")

    _patch("open_array", mapped, *(f"fae.artifacts.{name}" for name in ("columnar_log", "hot_set", "packed")))


def _kept_ingest_believed() -> None:
    from fae.ingest.resume import IngestProgress

    IngestProgress._check = _nothing  # type: ignore[method-assign]


def _nested_too_deep() -> None:
    _patch("parse_json", json.loads, "fae.core.whole_files")


FAULTS: dict[str, Callable[[], None]] = {
    "files are not checked": _no_checks,
    "sizes alone are compared, not checksums": _sizes_alone,
    "ids and addresses are not checked before loops follow them": _no_values,
    "headers of arrays are numpy's to read": _numpy_headers,
    "what an interrupted ingest has kept is believed": _kept_ingest_believed,
    "side files nested too deep are a RecursionError": _nested_too_deep,
}

if __name__ == "__main__":
    sys.exit(run_campaign(__file__, case, count=1000, faults=FAULTS, doc=__doc__ or "", arguments=sys.argv[1:]))
