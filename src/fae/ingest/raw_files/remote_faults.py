"""What went wrong with a remote file, in words: no access, no such name, another region, not reached, cut off.

Messages of the libraries differ by store, version and request; the words here are found in them. No message names a
key, a signature or what is behind ``?`` in an address.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from fae.core.errors import LogError
from fae.ingest.raw_files.missing_files import RemoteFileError
from fae.ingest.raw_files.remote_name import RemoteName

_ACCESS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, to what may list and read the bucket; "
    "?anonymous=true behind the name reads a public one",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`; ?anonymous=true behind "
    "the name reads a public bucket",
    "hdfs": "run `kinit`, or name the user behind the name: ?user=NAME",
    "https": "put a signed address into the recipe, or download the file and name the copy",
}
_DENIED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY|INVALID_CLIENT_TOKEN|SIGNATURE_DOES_NOT_MATCH|EXPIRED_TOKEN|ExpiredToken|"
    r"MISSING_AUTHENTICATION|UNRECOGNIZED_CLIENT|PERMISSION_DENIED|UNAUTHENTICATED|access token|HTTP status 40[13]|"
    r"AccessControlException|GSS initiate failed"
)
_NO_BUCKET = re.compile(r"NO_SUCH_BUCKET|NoSuchBucket")
_BUCKET_REGION = re.compile(r"is located in '([a-z0-9-]+)'")
_OTHER_REGION = re.compile(r"HTTP status 301|PermanentRedirect|AUTHORIZATION_HEADER_MALFORMED")
_ABSENT = re.compile(r"HTTP status 404|NO_SUCH_KEY|RESOURCE_NOT_FOUND|NOT_FOUND|Path does not exist|No such file")
_REFUSED = re.compile(r"HTTP status (4\d\d)")
_BUSY = re.compile(r"HTTP status 5\d\d|SLOW_DOWN|SlowDown|INTERNAL_FAILURE|SERVICE_UNAVAILABLE|THROTTLING")
_UNREACHED = re.compile(
    r"Could not resolve host\w*|Could not connect to server|Failed to connect|Connection refused|"
    r"Network is unreachable|No route to host|UnknownHostException|SSL \w+ \w+|Problem with the SSL"
)
_CURL = re.compile(r"curlCode: \d+, ([^;]+)")
_CUT = re.compile(r"NETWORK_CONNECTION|curlCode|UNAVAILABLE|CURL error|Timeout|timed out|reset by peer")
_NO_LIBRARY = re.compile(r"[Uu]nable to load lib(jvm|hdfs)|libhdfs|CLASSPATH|HADOOP_HOME")
_NOT_BUILT = re.compile(r"without \w+ support|not built with|Unrecognized filesystem type|cannot import name")


def unknown_setting(path: RemoteName, name: str, known: Sequence[str]) -> LogError:
    """The error for a setting behind ``?`` that a store does not have."""
    return LogError(
        f"{path}: {path.scheme}:// has no setting {name!r} behind ?; its settings are {', '.join(known)} (a ? in a "
        "pattern is none here: write * or [...])"
    )


def explain_remote_fault(path: RemoteName, error: BaseException) -> RemoteFileError:
    """What an error of a store says, in one line with advice."""
    if isinstance(error, RemoteFileError):
        return error
    if isinstance(error, ConnectionRefusedError):
        return explain_remote_text(path, "Connection refused")
    if isinstance(error, (ConnectionError, TimeoutError)):
        return explain_remote_text(path, "curlCode: 0, the connection was cut off")
    return explain_remote_text(path, str(error))


def explain_remote_text(path: RemoteName, text: str) -> RemoteFileError:
    """What the message of a library says, in one line with advice."""
    what = _brief(text)
    if _NOT_BUILT.search(text):
        return RemoteFileError(
            f"{path}: this build of pyarrow has no {path.scheme}:// ({what}); install pyarrow from PyPI or conda-forge"
        )
    if path.scheme == "hdfs" and _NO_LIBRARY.search(text):
        return RemoteFileError(
            f"{path}: Hadoop's libraries are not found; install Java and Hadoop, and set JAVA_HOME, HADOOP_HOME and "
            "CLASSPATH (`hadoop classpath --glob`)"
        )
    if found := _BUCKET_REGION.search(text):
        return RemoteFileError(
            f"{path}: the bucket is in the region {found[1]}; write ?region={found[1]} behind the name, or set "
            "AWS_REGION"
        )
    if _OTHER_REGION.search(text):
        return RemoteFileError(
            f"{path}: the bucket is in another region ({what}); write ?region=NAME behind the name, or set AWS_REGION"
        )
    if _NO_BUCKET.search(text):
        return no_bucket(path)
    if _DENIED.search(text):
        advice = _ACCESS["https" if path.is_web else path.scheme]
        return RemoteFileError(f"{path}: no access ({what}); {advice}")
    if _ABSENT.search(text):
        return RemoteFileError(f"{path} does not exist; correct the name", is_absent=True)
    if _BUSY.search(text):
        return RemoteFileError(f"{path}: its server has a fault or is busy ({what}); run the command again later",
                               is_passing=True)  # fmt: skip
    if found := _UNREACHED.search(text):
        return RemoteFileError(f"{path}: its server is not reached ({found[0]}); {_network(path)}", is_passing=True)
    if _CUT.search(text):
        return RemoteFileError(f"{path}: its server does not answer ({what}); {_network(path)}", is_passing=True)
    if _REFUSED.search(text):
        return RemoteFileError(
            f"{path}: its server refuses the request ({what}); check the name, its settings behind ? and whether "
            "credentials have expired"
        )
    return RemoteFileError(f"cannot read {path}: {what}; check its name and its settings behind ?")


def no_bucket(path: RemoteName) -> RemoteFileError:
    """The error for a bucket that does not exist."""
    return RemoteFileError(
        f"{path}: there is no bucket {path.root!r}; correct its name, or set the endpoint of the store that has it",
        is_absent=True,
    )


def _network(path: RemoteName) -> str:
    own = {"s3": ", AWS_ENDPOINT_URL or ?endpoint_override= behind the name", "gs": " and ?endpoint_override="}
    return f"check the network{own.get(path.scheme, '')}"


def _brief(text: str) -> str:
    """The part of a library's message that says what happened, without names, which may be long or secret."""
    if found := _CURL.search(text):
        return found[1].strip()
    if found := re.search(r"AWS Error ([A-Z_]+)(?: \((HTTP status \d+)\))? during (\w+)", text):
        return f"{found[2] or found[1]} during {found[3]}"
    if found := re.search(r"HTTP status \d+", text):
        return found[0]
    if "access token" in text:
        return "it cannot get an access token"
    if found := re.search(r"Status\(([A-Z_]+)", text):
        return found[1]
    line = next(iter(text.splitlines()), "").strip()
    return re.sub(r"\?\S+", "?...", line)[:120] or "no reason was given"
