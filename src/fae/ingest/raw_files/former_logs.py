"""Logs that are there already, under the names that they have: none is made again because digests have a newer kind.

The name of a log, its fingerprint, follows from the digests of its files among other things, and these are of several
kinds (`fae.ingest.raw_files.digest_kinds`). A log that is not there yet is named by the newest. A log whose name by an
older kind is one that is known here keeps that: it is the log of this folder or of one beside it, or profile, hot
set, packed batches or checkpoint of this folder were made from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fae.artifacts.columnar_log import FORMAT_VERSION, KIND
from fae.artifacts.manifest import fingerprint
from fae.core.files import MANIFEST
from fae.core.whole_files import read_json
from fae.ingest.config import LogConfig
from fae.ingest.raw_files.digest_kinds import BLOCKS, KINDS, digest_in, kind_in

Facts = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class FormerLog:
    """A log that was made before.

    Attributes
    ----------
    fingerprint
        Its name.
    parents
        What it continues, as in its manifest.
    sources
        Its raw files, as in its manifest; empty where the log is gone and nothing but its name is known.
    """

    fingerprint: str
    parents: Mapping[str, str]
    sources: tuple[Facts, ...] = ()

    @property
    def kind(self) -> str:
        """The kind of digest by which it names its files."""
        return kind_in(self.sources[0])

    def digests(self) -> list[str]:
        """The digests of its files."""
        return [digest_in(facts, self.kind) for facts in self.sources]

    def has_files(self, files: Sequence[Facts]) -> bool:
        """Whether its files have the names and sizes of `files`, in their order."""
        return bool(self.sources) and [_place(facts) for facts in self.sources] == [_place(facts) for facts in files]


_former: dict[str, FormerLog] = {}
"""By fingerprint, in the order in which this process found them."""


def remember_log(artifact: Path) -> FormerLog | None:
    """Take note of the log at `artifact`, if one that was made from raw files is there."""
    try:
        found = read_json(artifact / MANIFEST)
        sources, name, parents = found["parameters"]["sources"], found["fingerprint"], found["parents"]
        if found["kind"] != KIND or not all(digest_in(facts, kind_in(facts)) for facts in sources):
            return None
        former = FormerLog(fingerprint=name, parents=dict(parents), sources=tuple(map(dict, sources)))
        if not former.sources or any(kind_in(facts) != former.kind for facts in sources):
            return None
        _former[name] = former
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # its stage says what is wrong with it
        return None
    return former


def remember_names(names: Iterable[str], parents: Mapping[str, str]) -> None:
    """Take note of fingerprints of logs that are gone, and that later artifacts were made from.

    Parameters
    ----------
    parents
        What the logs continue.
    """
    for name in names:
        _former.setdefault(name, FormerLog(fingerprint=name, parents=dict(parents)))


def find_kind(
    config: LogConfig, files: Sequence[Facts], digests: Callable[[str], Sequence[str]], own: FormerLog | None
) -> str:
    """The kind of digest by which the log of these files is named.

    Parameters
    ----------
    files
        Facts of each file without its digest, with its ``role``.
    digests
        From a kind to the digests of the files; it may read all of them.
    own
        The log in the place of the one that is to be named, which goes before others.
    """
    for former in _same_settings(config, files, own):
        if list(digests(former.kind)) == former.digests():
            return former.kind
    gone = [former for former in _former.values() if not former.sources]
    for kind in KINDS if gone else ():
        named = [{**facts, kind: digest} for facts, digest in zip(files, digests(kind), strict=True)]
        if any(_name(config, named, former) == former.fingerprint for former in gone):
            return kind
    return BLOCKS


def is_named_by(kind: str, config: LogConfig, files: Sequence[Facts], digests: Sequence[str]) -> bool:
    """Whether a known log of earlier code is the one of these files and settings; `digests` are of that kind."""
    former_logs = _same_settings(config, files, None)
    return any(former.kind == kind and former.digests() == list(digests) for former in former_logs)


def log_parameters(config: LogConfig, files: Sequence[Facts]) -> dict[str, Any]:
    """What names the log of some files: the recipe's table in full form, and the files.

    Recipes that say the same in different ways get the same parameters, so that the log is not made twice.
    """
    parameters = config.to_parameters()
    parameters["dense"] = [column.to_entry() for column in config.dense_settings()]
    parameters["label"] = config.label_column()
    published = config.has_published_split()
    parameters["test_fraction"] = "published" if published else config.effective_test_fraction()
    parameters["validation_fraction"] = "published" if published else config.effective_validation_fraction()
    for role in ("train", *(["validation"] if config.validation else []), "test"):
        parameters[role] = [file["name"] for file in files if file["role"] == role]
    parameters["sources"] = [{key: value for key, value in file.items() if key != "role"} for file in files]
    return parameters


def _same_settings(config: LogConfig, files: Sequence[Facts], own: FormerLog | None) -> Iterator[FormerLog]:
    """Known logs that would be those of the recipe if the files had the content that theirs had."""
    others = [former for former in _former.values() if own is None or former.fingerprint != own.fingerprint]
    for former in [*([own] if own else []), *others]:
        if former.has_files(files):
            kept = zip(files, former.digests(), strict=True)
            named = [{**facts, former.kind: digest} for facts, digest in kept]
            if _name(config, named, former) == former.fingerprint:
                yield former


def _name(config: LogConfig, files: Sequence[Facts], former: FormerLog) -> str:
    return fingerprint(KIND, FORMAT_VERSION, log_parameters(config, files), former.parents)


def _place(facts: Facts) -> tuple[Any, Any]:
    return facts.get("name"), facts.get("bytes")
