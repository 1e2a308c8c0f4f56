"""Names of files that are elsewhere, such as `s3://bucket/day_1.csv.gz`, and their parts.

A name is taken as it is written, without decoding: ``s3://bucket/a b%20.csv`` is that key. Behind ``?`` are settings of
the store (``?region=eu-west-1``) or the query of a web address; they are never printed, as addresses may be signed.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl

from fae.core.errors import LogError

SCHEMES = ("s3", "gs", "gcs", "hdfs", "https", "http")
_WEB = ("https", "http")
_REMOTE = re.compile(rf"({'|'.join(SCHEMES)})://", re.IGNORECASE)


def is_remote(name: str) -> bool:
    """Whether a name of the recipe is one of a file that is elsewhere.

    >>> is_remote("s3://bucket/a.csv"), is_remote("logs/a.csv")
    (True, False)
    """
    return _REMOTE.match(name) is not None


@dataclass(frozen=True, repr=False)
class RemoteName:
    """The name of a file in an object store, a Hadoop cluster or on a web server; a plain value for tasks.

    Attributes
    ----------
    uri
        The whole name, with its query. It may hold a signature: for servers and not for people.
    scheme
        ``s3``, ``gs``, ``hdfs``, ``https`` or ``http``.
    place
        What is behind it: bucket and key, or server and path.
    query
        What is behind ``?`` in the name.

    Raises
    ------
    LogError
        If the name holds a user's name or password.
    """

    uri: str
    scheme: str = field(init=False, compare=False)
    place: str = field(init=False, compare=False)
    query: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        scheme, _, rest = self.uri.partition("://")
        place, mark, query = rest.partition("?")
        scheme = scheme.lower().replace("gcs", "gs")
        place = place if scheme in _WEB else re.sub("/+", "/", place)
        facts = {"scheme": scheme, "place": place, "query": query, "uri": f"{scheme}://{place}{mark}{query}"}
        for name, value in facts.items():
            object.__setattr__(self, name, value)
        if "@" in self.root:
            raise LogError(
                f"{self.scheme}://{self.root.rpartition('@')[2]}: the name holds a user or a password, which would be "
                "written into records; leave it out, and set it in the environment"
            )

    @property
    def is_web(self) -> bool:
        """Whether it is on a web server, which lists no files."""
        return self.scheme in _WEB

    @property
    def root(self) -> str:
        """The bucket or the server."""
        return self.place.partition("/")[0]

    @property
    def key(self) -> str:
        """What is behind the bucket or the server, without the slash between them."""
        return self.place.partition("/")[2]

    @property
    def identity(self) -> str:
        """A name of the file alone, for records: equal for equal ones, and without what is behind ``?``."""
        if not self.query:
            return str(self)
        return f"{self}?{hashlib.blake2b(self.query.encode(), digest_size=8).hexdigest()}"

    @property
    def settings(self) -> dict[str, str]:
        """The query as names and values."""
        return dict(parse_qsl(self.query, keep_blank_values=True))

    def at(self, place: str) -> Self:
        """Another file of the same store, with the same settings."""
        if "?" in place:
            raise LogError(
                f"{self.scheme}://{place} has a ? in its name, behind which settings begin; copy it to another name"
            )
        return type(self)(f"{self.scheme}://{place}" + (f"?{self.query}" if self.query else ""))

    @property
    def parts(self) -> tuple[str, ...]:
        """The store, its folders and the name."""
        root, *names = self.place.split("/")
        return (f"{self.scheme}://{root}", *(name for name in names if name))

    @property
    def parent(self) -> Self:
        """The folder that it is in."""
        return self.at(self.place.rstrip("/").rpartition("/")[0] or self.root)

    @property
    def name(self) -> str:
        """The last part of the name."""
        return self.parts[-1] if len(self.parts) > 1 else ""

    @property
    def suffix(self) -> str:
        """The end of the name from its last dot on, as `pathlib.PurePath.suffix`."""
        return Path(self.name).suffix

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return Path(self.name).stem

    def __str__(self) -> str:
        return f"{self.scheme}://{self.place}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"
