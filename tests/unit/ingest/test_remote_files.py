"""Logs in an object store and on web servers: the same log as from a disk, and one clear line for what goes wrong."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fae.core.errors import LogError
from fae.engine.plain_values import from_plain, to_plain
from fae.ingest.config import LogConfig
from fae.ingest.ingest import ingest
from fae.ingest.log_plan import plan_ingest
from fae.ingest.raw_files import former_logs, remote_files, remote_stores, source_digests
from fae.ingest.raw_files.missing_files import MissingFilesError, RemoteFileError
from fae.ingest.raw_files.remote_faults import explain_remote_fault
from fae.ingest.raw_files.remote_files import RemoteFile, RemotePath, open_source, source_path
from fae.ingest.raw_files.source_digests import digest_sources
from fae.ingest.sources import find_sources
from fae.planning.sample.raw_sample import sample_raw

from commands import artifacts, contents, fae, fault, succeed, write_log, write_recipe
from object_store import BUCKET, ENVIRONMENT, FaultyServer, ObjectStore, faulty_server, object_store

ROWS = [(number % 2, f"u{number % 7}", f"i{number % 11}", number / 4) for number in range(300)]


@pytest.fixture(scope="module")
def running() -> Iterator[ObjectStore]:
    with object_store() as store:
        yield store


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_digests, "_known_digests", {})
    monkeypatch.setattr(former_logs, "_former", {})
    monkeypatch.setattr(remote_files, "PAUSES", (0.01, 0.02))
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def store(running: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
    return running


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with faulty_server() as found:
        yield found


def csv(rows: list[Any] = ROWS) -> bytes:
    return "".join(f"{','.join(map(str, row))}\n" for row in [("label", "user", "item", "price"), *rows]).encode()


def parquet(rows: list[Any] = ROWS) -> bytes:
    names = ("label", "user", "item", "price")
    target = io.BytesIO()
    table = pa.table({name: [row[place] for row in rows] for place, name in enumerate(names)})
    pq.write_table(table, target, row_group_size=70)
    return target.getvalue()


def config(train: Any, **changes: Any) -> LogConfig:
    return LogConfig(**({"train": train, "categorical": ("user", "item"), "dense": ("price",)} | changes))


def names(train: Any, **changes: Any) -> list[str]:
    return [str(source.path) for source in find_sources(config(train, **changes), Path("/nowhere"))]


def refused(train: Any, **changes: Any) -> str:
    """The one line for a log that cannot be found."""
    with pytest.raises(LogError) as caught:
        find_sources(config(train, **changes), Path("/nowhere"))
    text = str(caught.value)
    assert "\n" not in text
    assert "a-secret-key" not in text
    assert "an-access-key" not in text
    return text


# ---- the same log ----


def criteo(rows: list[Any]) -> bytes:
    lines = ([row[0], *[row[0] + place for place in range(13)], *[row[1][1:]] * 26] for row in rows)
    return "".join("\t".join(map(str, line)) + "\n" for line in lines).encode()


def jsonl(rows: list[Any]) -> bytes:
    names = ("label", "user", "item", "price")
    return "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows).encode()


@pytest.mark.parametrize(
    ("suffix", "encode", "log_format"),
    [
        ("txt", criteo, "criteo"),
        ("jsonl", jsonl, "jsonl"),
        ("csv", csv, "csv"),
        ("csv.gz", lambda rows: gzip.compress(csv(rows), mtime=0), "csv"),
        ("parquet", parquet, "parquet"),
    ],
)
def test_the_same_log_as_from_a_disk(
    store: ObjectStore, tmp_path: Path, suffix: str, encode: Any, log_format: Any
) -> None:
    for number, rows in ((1, ROWS[:130]), (2, ROWS[130:])):
        (tmp_path / f"day_{number}.{suffix}").write_bytes(encode(rows))
        store.put(f"same/{suffix}/day_{number}.{suffix}", encode(rows))
    columns = {"categorical": (), "dense": ()} if log_format == "criteo" else {}
    local = ingest(config(f"day_*.{suffix}", format=log_format, **columns), tmp_path / "local", base=tmp_path)
    named = f"s3://{BUCKET}/same/{suffix}/day_*.{suffix}"
    remote = ingest(config(named, format=log_format, **columns), tmp_path / "remote", base=tmp_path)
    assert local.manifest.fingerprint == remote.manifest.fingerprint
    assert local.manifest.files == remote.manifest.files
    assert local.num_inputs == len(ROWS)
    files = [path.relative_to(local.path) for path in sorted(local.path.rglob("*")) if path.is_file()]
    assert files
    for file in files:
        assert (local.path / file).read_bytes() == (remote.path / file).read_bytes()


@pytest.mark.parametrize(("suffix", "encode"), [("csv", csv), ("parquet", parquet)])
def test_a_plan_takes_the_same_sample(store: ObjectStore, tmp_path: Path, suffix: str, encode: Any) -> None:
    rows = ROWS * 40
    (tmp_path / f"a.{suffix}").write_bytes(encode(rows))
    name = store.put(f"sampled/a.{suffix}", encode(rows))
    found = []
    for number, train in enumerate((f"a.{suffix}", name)):
        this = config(train, format=suffix)
        sample = sample_raw(this, find_sources(this, tmp_path), tmp_path / f"sample{number}", 40_000)
        assert 0 < sample.share < 1
        found.append((sample.share, [Path(each).read_bytes() for each in sample.config.train]))
    assert found[0] == found[1]


def test_folders_give_columns(store: ObjectStore, tmp_path: Path) -> None:
    store.put("hive/day=1/a.csv", csv(ROWS[:50]))
    store.put("hive/day=2/a.csv", csv(ROWS[50:90]))
    this = config(f"s3://{BUCKET}/hive/day=*/a.csv", categorical=("user", "day"))
    log = ingest(this, tmp_path / "log", base=tmp_path)
    assert log.manifest.parameters["sources"][1]["folders"] == {"day": "2"}
    assert log.manifest.summary["value_facts"]["day"]["distinct"] == 2


def test_a_run_and_its_skipping(store: ObjectStore, tmp_path: Path) -> None:
    """Through the command line: the raw log is read once, and not looked at where the store is gone."""
    write_log(tmp_path)
    store.put("runs/log.csv", (tmp_path / "log.csv").read_bytes())
    recipe = write_recipe(tmp_path, log={"train": f"s3://{BUCKET}/runs/log.csv"})
    succeed("ingest", recipe, "--out", tmp_path / "remote")
    local = write_recipe(tmp_path, "local.toml")
    assert "ingest: found" in succeed("ingest", local, "--out", tmp_path / "local").stderr, "it has the same name"
    assert "ingest: already there" in succeed("ingest", recipe, "--out", tmp_path / "remote").stderr
    os.environ["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"
    said = succeed("ingest", recipe, "--out", tmp_path / "remote").stderr
    assert "the raw files are not looked at" in said
    fault(fae("ingest", recipe, "--out", tmp_path / "new"), "is not reached", "AWS_ENDPOINT_URL")
    assert "log" not in artifacts(tmp_path / "new")


def test_scoring_a_remote_file(store: ObjectStore, tmp_path: Path) -> None:
    write_log(tmp_path)
    name = store.put("scored/log.csv", (tmp_path / "log.csv").read_bytes())
    recipe = write_recipe(tmp_path)
    succeed("run", recipe, "--out", tmp_path / "run", "--device", "cpu")
    succeed("predict", tmp_path / "run", name, "--out", tmp_path / "remote.csv")
    succeed("predict", tmp_path / "run", tmp_path / "log.csv", "--out", tmp_path / "local.csv")
    assert (tmp_path / "remote.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()


def test_what_did_not_change_is_not_read_again(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    real = source_digests.open_blocks
    monkeypatch.setattr(source_digests, "open_blocks", lambda path: reads.append(path.name) or real(path))
    monkeypatch.setattr(source_digests, "TRUST_AFTER_NS", 0)  # the object was written just now
    name = store.put("again/a.csv", csv())
    path = tmp_path / "log"
    log = ingest(config(name), path, base=tmp_path)
    assert reads == ["a.csv"]
    monkeypatch.setattr(source_digests, "_known_digests", {})
    assert plan_ingest(config(name), base=tmp_path, previous=path).fingerprint == log.manifest.fingerprint
    assert reads == ["a.csv"]
    store.put("again/a.csv", csv(ROWS[:-1]))
    assert plan_ingest(config(name), base=tmp_path, previous=path).fingerprint != log.manifest.fingerprint
    assert reads == ["a.csv"] * 2


def test_an_object_that_changes_while_it_is_read(store: ObjectStore, tmp_path: Path) -> None:
    name = store.put("changing/a.csv", csv())
    (source,) = find_sources(config(name), tmp_path)
    store.put("changing/a.csv", csv(ROWS[:100]))
    with pytest.raises(LogError, match="changed while it was read"):
        source.check_unchanged()
    with pytest.raises(LogError, match="changed while it was read"):
        digest_sources([source], None).of()


# ---- names and patterns ----


@pytest.fixture(scope="module")
def named(running: ObjectStore) -> ObjectStore:
    for key in (
        "day_10.csv", "day_2.csv", "_SUCCESS", "day_2.csv.crc", ".day_3.csv", "a b%20+ü.csv", "run[1].csv",
        "deep/x=1/day_1.csv", "deep/x=2/day_1.csv", "deep/_temporary/day_1.csv", "deep/x=2/y/day_5.csv",
    ):  # fmt: skip
        running.put(f"named/{key}", b"label\n1\n")
    running.put("named/empty_1.csv", b"")
    return running


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("day_*.csv", ["day_2.csv", "day_10.csv"]),
        ("day_[0-9].csv", ["day_2.csv"]),
        ("a b%20+ü.csv", ["a b%20+ü.csv"]),
        ("run[1].csv", ["run[1].csv"]),
        ("deep/*/day_1.csv", ["deep/x=1/day_1.csv", "deep/x=2/day_1.csv"]),
        ("deep/x=*/*.csv", ["deep/x=1/day_1.csv", "deep/x=2/day_1.csv"]),
        ("deep/**/*.csv", ["deep/x=1/day_1.csv", "deep/x=2/day_1.csv", "deep/x=2/y/day_5.csv"]),
        ("deep/**", ["deep/x=1/day_1.csv", "deep/x=2/day_1.csv", "deep/x=2/y/day_5.csv"]),
        ("**/day_5.csv", ["deep/x=2/y/day_5.csv"]),
    ],
)
@pytest.mark.usefixtures("named")
def test_names_and_patterns(store: ObjectStore, pattern: str, expected: list[str]) -> None:
    assert names(f"s3://{BUCKET}/named/{pattern}") == [f"s3://{BUCKET}/named/{name}" for name in expected]


@pytest.mark.usefixtures("named", "store")
def test_what_is_passed_over_has_a_line() -> None:
    lines: list[str] = []
    find_sources(config(f"s3://{BUCKET}/named/*"), Path("/nowhere"), lines=lines)
    told = "\n".join(lines)
    assert "passes over 1 file or folder whose names begin with _" in told
    assert "_SUCCESS" in told
    assert "day_2.csv.crc" in told
    assert "1 file of 0 bytes: empty_1.csv" in told


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        (f"s3://{BUCKET}/named/day_3.csv", "day_3.csv does not exist; set [log] train to the files of the log"),
        (f"s3://{BUCKET}/named/no_*.csv", "matches no file; correct the pattern"),
        (f"s3://{BUCKET}/named/dee*", "named/deep, which is no file; write"),
        (f"s3://{BUCKET}/named/deep", "is a folder; write"),
        (f"s3://{BUCKET}/named/empty_1.csv", "is empty (0 bytes)"),
        (f"s3://{BUCKET}", "names no file"),
        ("s3://no-such-bucket/a.csv", "there is no bucket 'no-such-bucket'"),
        ("s3://no-such-bucket/*.csv", "there is no bucket 'no-such-bucket'"),
        (f"s3://{BUCKET}/named/day_?.csv", "no setting '.csv' behind ?; its settings are region"),
        (f"s3://{BUCKET}/named/day_2.csv?zone=a", "no setting 'zone'"),
        (f"s3://user:word@{BUCKET}/named/day_2.csv", "the name holds a user or a password"),
        ((f"s3://{BUCKET}/named/day_2.csv", f"s3://{BUCKET}/named/day_*.csv"), "is named twice"),
    ],
)
@pytest.mark.usefixtures("named", "store")
def test_names_that_lead_nowhere(train: Any, expected: str) -> None:
    text = refused(train)
    assert expected in text
    assert "word" not in text.replace("password", "")


@pytest.mark.usefixtures("named")
def test_the_endpoint_in_the_name(running: ObjectStore) -> None:
    host = running.endpoint.partition("://")[2]
    settings = f"?endpoint_override={host}&scheme=http&region=us-east-1"
    assert names(f"s3://{BUCKET}/named/day_*.csv{settings}")[0] == f"s3://{BUCKET}/named/day_2.csv"


# ---- what goes wrong ----


def test_no_access(store: ObjectStore) -> None:
    name = store.put("private/a.csv", csv())
    with store.checking_keys():
        for train in (name, f"s3://{BUCKET}/private/*.csv"):
            text = refused(train)
            assert "no access" in text
            assert "AWS_PROFILE" in text
    assert names(name) == [name]


def test_no_server() -> None:
    os.environ["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"
    assert "its server is not reached" in refused(f"s3://{BUCKET}/a.csv")


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (403, {}, "no access"),
        (301, {"x-amz-bucket-region": "eu-north-1"}, "is in the region eu-north-1; write ?region=eu-north-1"),
        (400, {}, "refuses the request (HTTP status 400 during HeadObject)"),
        (503, {}, "has a fault or is busy (HTTP status 503 during HeadObject)"),
    ],
)
def test_answers_of_a_store(server: FaultyServer, status: int, headers: dict[str, str], expected: str) -> None:
    os.environ["AWS_ENDPOINT_URL"] = f"http://{server.address}"
    server.answer, server.headers = lambda number: status, headers
    assert expected in refused(f"s3://{BUCKET}/a.csv")


def test_a_store_that_cuts_its_answers_off(server: FaultyServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The library's own tries and ours: what comes at last is right, and what never comes is one line."""
    os.environ["AWS_ENDPOINT_URL"] = f"http://{server.address}"
    content = csv()
    server.files[f"/{BUCKET}/a.csv"] = content
    path = RemotePath(f"s3://{BUCKET}/a.csv")
    ranges = remote_files.RetriedRanges(path)
    reads = len(server.requests)
    server.answer = lambda number: "cut" if number < reads + 4 else None
    assert ranges.read(10, 500) == content[10:500]
    assert "trying again in 0.01 s" in capsys.readouterr().err
    server.answer = lambda number: "cut"
    with pytest.raises(RemoteFileError, match=r"reading from byte 10 of [\d,]+ on failed 3 times in a row"):
        ranges.read(10, 500)


@pytest.mark.parametrize(
    ("text", "scheme", "expected"),
    [
        ("google::cloud::Status(PERMISSION_DENIED: x@y does not have storage.objects.get access)", "gs", "no access"),
        ("Status(UNAVAILABLE: Could not create a OAuth2 access token)", "gs", "it cannot get an access token"),
        ("google::cloud::Status(UNAVAILABLE: ... CURL error [6]=Could not resolve hostname)", "gs", "is not reached"),
        ("Unable to load libjvm\ndlopen(...)", "hdfs", "JAVA_HOME"),
        ("Got S3 URI but Arrow compiled without S3 support", "s3", "this build of pyarrow has no s3://"),
        ("AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 28, Timeout was reached; D", "s3",
         "does not answer (Timeout was reached)"),
        ("something else with ?X-Amz-Signature=123", "s3", "cannot read s3://b/a.csv"),
    ],
)  # fmt: skip
def test_words_for_what_libraries_say(text: str, scheme: str, expected: str) -> None:
    said = str(explain_remote_fault(RemotePath(f"{scheme}://b/a.csv"), OSError(text)))
    assert expected in said
    assert "\n" not in said
    assert "123" not in said


def test_hadoop_without_its_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no Hadoop is installed, which is what CI has."""
    monkeypatch.setenv("JAVA_HOME", "/nonexistent")
    monkeypatch.setenv("HADOOP_HOME", "/nonexistent")
    assert "Hadoop's libraries are not found" in refused("hdfs://cluster:8020/logs/a.csv")


def test_a_store_that_this_pyarrow_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.fs

    monkeypatch.setattr(remote_stores, "_stores", {})
    monkeypatch.delattr(pyarrow.fs, "S3FileSystem")
    os.environ["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"
    assert "this build of pyarrow has no s3://" in refused("s3://b/a.csv")


# ---- web servers ----


def test_a_log_on_a_web_server(server: FaultyServer, tmp_path: Path) -> None:
    server.files["/logs/a.csv.gz"] = gzip.compress(csv(), mtime=0)
    (tmp_path / "a.csv.gz").write_bytes(server.files["/logs/a.csv.gz"])
    name = f"http://{server.address}/logs/a.csv.gz?signature=a-secret-key"
    remote = ingest(config(name), tmp_path / "remote", base=tmp_path)
    local = ingest(config("a.csv.gz"), tmp_path / "local", base=tmp_path)
    assert remote.manifest.fingerprint == local.manifest.fingerprint
    assert contents(remote.path) == contents(local.path)
    assert "a-secret-key" not in (tmp_path / "remote.sources.json").read_text()
    assert all(path == "/logs/a.csv.gz?signature=a-secret-key" for _, path, _ in server.requests)
    reads = len(server.requests)
    source_digests._known_digests.clear()
    plan_ingest(config(name), base=tmp_path, previous=remote.path)
    assert len(server.requests) == reads + 1, "its time of change is old, so it is not hashed again"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (401, "no access (HTTP status 401)"),
        (403, "no access (HTTP status 403)"),
        (404, "does not exist; set [log] train"),
        (429, "refuses the request (HTTP status 429)"),
        (500, "has a fault or is busy (HTTP status 500)"),
        ("whole", "sends whole files only"),
    ],
)
def test_answers_of_a_web_server(server: FaultyServer, answer: Any, expected: str) -> None:
    server.files["/a.csv"] = csv()
    server.answer = lambda number: answer
    assert expected in refused(f"http://{server.address}/a.csv?signature=a-secret-key")


def test_web_servers_list_nothing_and_may_be_gone(server: FaultyServer) -> None:
    assert "a web server lists no files" in refused(f"http://{server.address}/*.csv")
    assert "its server is not reached" in refused("http://127.0.0.1:9/a.csv")
    assert "its server is not reached" in refused("https://no-such-host.invalid/a.csv")
    server.files["/empty.csv"] = b""
    assert "is empty (0 bytes)" in refused(f"http://{server.address}/empty.csv")


def test_a_web_server_that_cuts_its_answers_off(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second answer is half of one: the log is the same."""
    monkeypatch.setattr(remote_files, "_STEPS", (64, 128, 256))
    server.files["/a.csv"] = csv()
    (tmp_path / "a.csv").write_bytes(csv())
    plan = plan_ingest(config(f"http://{server.address}/a.csv"), base=tmp_path)
    monkeypatch.setattr(remote_files, "PAUSES", (0.01,) * 8)
    server.answer = lambda number: "cut" if number % 2 else None
    log = ingest(config(f"http://{server.address}/a.csv"), tmp_path / "log", base=tmp_path)
    assert log.manifest.fingerprint == plan.fingerprint
    assert log.manifest.fingerprint == plan_ingest(config("a.csv"), base=tmp_path).fingerprint


def test_a_log_that_is_cut_off_for_good_is_one_line(server: FaultyServer, tmp_path: Path) -> None:
    server.files["/a.csv"] = server.files["/b.csv"] = csv()
    found = [f"http://{server.address}/a.csv", f"http://{server.address}/b.csv"]
    plan_ingest(config(found), base=tmp_path)
    server.answer = lambda number: (
        "cut" if server.requests[number][1] == "/b.csv" and server.requests[number][2] != ("bytes=0-0") else None
    )
    with pytest.raises(MissingFilesError, match=r"b.csv: reading from byte 0 of .* failed 3 times in a row"):
        ingest(config(found), tmp_path / "log", base=tmp_path)
    server.answer = lambda number: None
    assert ingest(config(found), tmp_path / "log", base=tmp_path).num_inputs == 2 * len(ROWS)


# ---- reading ----


@pytest.mark.parametrize("seed", range(6))
def test_any_reads_find_the_bytes(server: FaultyServer, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    draw = random.Random(seed)
    monkeypatch.setattr(remote_files, "_STEPS", draw.choice([(1, 2, 3), (16, 64, 128), (1 << 16, 1 << 20, 8 << 20)]))
    content = draw.randbytes(draw.choice([0, 1, 130, 5000]))
    server.files["/a.bin"] = content
    expected = io.BytesIO(content)
    with RemoteFile(RemotePath(f"http://{server.address}/a.bin")) as file:
        assert file.size() == len(content)
        for _ in range(60):
            if draw.random() < 0.3:
                place = draw.randint(0, len(content) + 5)
                assert file.seek(place) == expected.seek(place)
            count = draw.choice([0, 1, 7, 100, 3000])
            assert file.read(count) == expected.read(count)
            assert file.tell() == expected.tell()
        file.seek(-min(3, len(content)), io.SEEK_END)
        assert file.read() == content[-3:]


def test_open_source_is_one_way_to_all_files(store: ObjectStore, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(300_000)
    name = store.put("open/a.bin", content)
    weird = tmp_path / os.fsdecode(b"a\xff.bin")
    weird.write_bytes(content)
    for opened in (open_source(name), open_source(source_path(name)), open_source(weird), open_source(str(weird))):
        file, num_bytes = opened
        with file:
            assert num_bytes == len(content) == file.size()
            assert file.read_at(100, 250_000) == content[250_000:250_100]
            file.seek(0)
            assert file.read(10) == content[:10]
            file.seek(299_990)
            assert file.read(100) == content[299_990:]
    with pytest.raises(RemoteFileError, match="does not exist"):
        open_source(f"s3://{BUCKET}/open/gone.bin")
    with pytest.raises(FileNotFoundError):
        open_source(tmp_path / "gone.bin")


def test_ahead_is_not_read_for_a_look(server: FaultyServer) -> None:
    server.files["/a.bin"] = bytes(1 << 22)
    with RemotePath(f"http://{server.address}/a.bin").open("rb") as file:
        assert file.read(4096) == bytes(4096)
    assert [wanted for _, _, wanted in server.requests] == ["bytes=0-0", f"bytes=0-{(1 << 16) - 1}"]


def test_a_remote_path_is_used_like_a_path() -> None:
    path = RemotePath("S3://bucket//a/b=1/x.csv.gz?region=eu")
    assert str(path) == "s3://bucket/a/b=1/x.csv.gz"
    assert (path.name, path.suffix, path.stem) == ("x.csv.gz", ".gz", "x.csv")
    assert path.parts == ("s3://bucket", "a", "b=1", "x.csv.gz")
    assert str(path.parent) == "s3://bucket/a/b=1"
    assert path == RemotePath("s3://bucket/a/b=1/x.csv.gz?region=eu")
    assert len({path, RemotePath("s3://bucket/a/b=1/x.csv.gz?region=us")}) == 2
    assert "region" not in repr(path)
    with pytest.raises(TypeError):
        os.fspath(path)  # type: ignore[call-overload]
    assert pickle.loads(pickle.dumps(path)) == path
    with pytest.raises(LogError, match=r"has a \? in its name"):
        path.at("bucket/a?b.csv")


def test_tasks_of_engines_take_remote_sources(store: ObjectStore) -> None:
    """As JSON, which a worker on another machine reads."""
    name = store.put("tasks/a.csv", csv())
    (source,) = find_sources(config(f"{name}?region=us-east-1"), Path("/nowhere"))
    found = from_plain(json.loads(json.dumps(to_plain(source))), "fae")
    assert found == source
    assert found.path.settings == {"region": "us-east-1"}
    with found.path.open("rb") as file:
        assert file.read() == csv()
