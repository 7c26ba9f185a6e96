"""Files at any URI: locate, read, write at once or not at all, list, remove.

A `Location` is a filesystem and a path on it: local paths need no scheme, everything else goes through fsspec. A URI
may name the connection that opens it (`s3://lake@bucket/trades`); who starts the process says what the name stands for,
and the credentials are in no URI. Which names exist below a store or an output is the business of `store.py`; what a
Parquet file means is that of `table.py`.
"""

import contextlib
import errno
import fcntl
import fnmatch
import glob
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

import fsspec
import pyarrow.fs
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from vae_ops.errors import OutputError, UsageError

__all__ = [
    "BUCKET_SCHEMES",
    "Location",
    "check_apart",
    "check_writable",
    "has_wildcard",
    "locate",
    "use_storage_options",
]

BUCKET_SCHEMES = ("s3", "s3a", "s3n", "gs", "gcs")
"""Schemes on which what stands before an @ can only be a connection, as no name of a bucket holds one."""

_CREATE_TRIES = 20
# For the whole process, as fsspec's own cache of filesystems is.
_options_by_prefix: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True)
class Location:
    """A path on a filesystem.

    Attributes:
        fs: The filesystem that holds the path.
        path: Absolute path on `fs`, without scheme.
        uri: What a person or another process may pass to `locate` to come back here; a plain path when local.
    """

    fs: fsspec.AbstractFileSystem
    path: str
    uri: str

    @property
    def is_local(self) -> bool:
        """Whether the path lies on a filesystem of this machine."""
        return isinstance(self.fs, LocalFileSystem)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name

    def child(self, *names: str) -> "Location":
        """The location below this one."""
        tail = "/".join(names)
        return Location(self.fs, f"{self.path.rstrip('/')}/{tail}", f"{self.uri.rstrip('/')}/{tail}")

    @property
    def parent(self) -> "Location":
        """The directory that this location lies in."""
        path, uri = (text.rstrip("/").rpartition("/")[0] for text in (self.path, self.uri))
        return Location(self.fs, path, uri)

    def at(self, path: str) -> "Location":
        """The location of another path on the same filesystem."""
        if self.is_local:
            return Location(self.fs, path, path)
        # Some filesystems begin their paths with the / that follows the authority in the URI, some have none there.
        tail = self.path.lstrip("/")
        if self.uri.endswith(tail):
            return Location(self.fs, path, self.uri.removesuffix(tail) + path.lstrip("/"))
        return Location(self.fs, path, self.fs.unstrip_protocol(path))

    def exists(self) -> bool:
        """Whether a file or directory is there."""
        return bool(self.fs.exists(self.path))

    def is_dir(self) -> bool:
        """Whether a directory is there; on object stores, whether anything lies below the path."""
        return bool(self.fs.isdir(self.path))

    def size(self) -> int:
        """Bytes of the file."""
        return int(self.fs.size(self.path))

    def list(self) -> list[str]:
        """Sorted names of the children; none where there is no directory."""
        try:
            found = self.fs.ls(self.path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted({PurePosixPath(path).name for path in found if path.rstrip("/") != self.path.rstrip("/")})

    def read_bytes(self) -> bytes:
        """The whole file."""
        return cast(bytes, self.fs.cat_file(self.path))

    def read_json(self) -> Any:
        """The value of a JSON file."""
        return json.loads(self.read_bytes())

    def open_input(self) -> BinaryIO:
        """Opens the file for reading."""
        return cast(BinaryIO, self.fs.open(self.path, "rb"))

    def open_output(self) -> BinaryIO:
        """Opens the file for writing; a reader may see it half-written, so stage it under another name."""
        return cast(BinaryIO, self.fs.open(self.path, "wb"))

    def write_atomic(self, data: bytes) -> None:
        """Writes the file so that a reader sees the old bytes or the new ones, whatever is killed whenever.

        A local directory must exist. At most one leftover per target can remain after a kill, and the next write
        to the same target takes it over.
        """
        if self.is_local:
            _replace_local(self.path, data)
        else:
            self.fs.pipe_file(self.path, data)

    def write_json(self, value: Any) -> None:
        """Writes a JSON file atomically; equal values give equal bytes."""
        self.write_atomic(_json_bytes(value))

    def create_json(self, value: Any) -> bool:
        """Writes a JSON file, whole, unless there is a file; True if this call created it.

        Of many callers on any number of machines exactly one creates the file, and object stores promise the same
        (conditional put). A local directory must exist.

        Args:
            value: A value that no other caller writes, such as one with a token: a request that is sent again after its
                answer was lost finds its own file, and knows it by the content.
        """
        data = _json_bytes(value)
        if self.is_local:
            return _replace_local(self.path, data, create=True)
        return _create_object(self, data)

    def make_dirs(self) -> None:
        """Creates the directory and its parents where missing; object stores need none."""
        self.fs.makedirs(self.path, exist_ok=True)

    def move_to(self, target: "Location") -> None:
        """Renames a file or directory on the same filesystem; atomic when local, a copy and a delete elsewhere."""
        if self.is_local:
            os.rename(self.path, target.path)
        else:
            self.fs.mv(self.path, target.path, recursive=True)

    def remove(self) -> None:
        """Removes the file, or the directory and all below it; nothing to remove is fine."""
        if self.is_local:
            _remove_local(self.path)
            return
        try:
            self.fs.rm(self.path, recursive=True)
        except FileNotFoundError:
            return

    def arrow_filesystem(self) -> pyarrow.fs.FileSystem:
        """The same filesystem for pyarrow, to be used with `path`."""
        if self.is_local:
            return pyarrow.fs.LocalFileSystem()
        return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(self.fs))


def locate(uri: str | os.PathLike[str]) -> Location:
    """Finds the filesystem behind a path or URI; nothing needs to exist there.

    Raises:
        UsageError: The text is empty or holds a password, its scheme needs a package that is not installed, or it names
            a connection that is unknown here.
    """
    text = os.fspath(uri)
    if not text or "\0" in text:
        raise UsageError(f"Expected a path or URI, got {text!r}; give a local path or something like s3://bucket/key.")
    if "://" not in text and "::" not in text:
        return _local(os.path.expanduser(text))
    bare, options = _without_connection(text)
    try:
        # Another process may write between two looks, so a cached listing would lie.
        fs, path = url_to_fs(bare, use_listings_cache=False, **options)
    except (ImportError, ValueError) as error:
        reason = str(error).rstrip(".")
        remedy = "install its fsspec package or use a local path"
        raise UsageError(f"No filesystem for {text!r}: {reason}; {remedy}.") from error
    return _local(path) if isinstance(fs, LocalFileSystem) else Location(fs, path, text.rstrip("/"))


def use_storage_options(options: Mapping[str, Mapping[str, Any]]) -> None:
    """Tells `locate` how to open URIs that name a connection, for as long as this process lives.

    The name stays in the URIs that are written down, so that whoever knows the connection can follow them; the options
    are written nowhere.

    Args:
        options: What opens the filesystem (arguments of its fsspec class), by the beginning of the URIs that it serves:
            `SCHEME://NAME@`.
    """
    _options_by_prefix.update({prefix: dict(values) for prefix, values in options.items()})


def _without_connection(uri: str) -> tuple[str, dict[str, Any]]:
    """The URI as fsspec takes it, and the options of the connection that it names, if any."""
    scheme, _, rest = uri.partition("://")
    name, at, _ = rest.partition("/")[0].rpartition("@")
    if ":" in name:
        raise UsageError(
            f"Expected no password in a URI, as it would be written into logs and manifests, but one for {scheme}:// "
            "has a ':' before its '@'; name an Airflow connection there, or give the password in the environment."
        )
    prefix = f"{scheme}://{name}@"
    if at and prefix in _options_by_prefix:
        return f"{scheme}://{uri.removeprefix(prefix)}", _options_by_prefix[prefix]
    if at and scheme.rpartition("::")[2] in BUCKET_SCHEMES:
        raise UsageError(
            f"{uri!r} names the connection {name!r}, of which this process was told nothing, as outside Airflow: leave "
            f"out '{name}@' and give the credentials in the environment."
        )
    return uri, {}


def _local(path: str) -> Location:
    absolute = os.path.abspath(path)
    return Location(LocalFileSystem(), absolute, absolute)


def has_wildcard(path: str) -> bool:
    """Whether the path is a glob pattern."""
    return any(sign in path for sign in "*?[")


def check_writable(location: Location) -> None:
    """Proves by a probe that files can be written at a directory that may not exist yet; leaves nothing behind.

    Raises:
        OutputError: A file stands where a directory is needed, or the filesystem refuses the probe.
    """
    if location.is_local:
        _probe_local(location.path)
        return
    probe = location.child(f".vae-ops-probe-{uuid.uuid4().hex}")
    try:
        probe.write_atomic(b"")
        probe.remove()
    # fsspec packages raise their own trees (botocore, aiohttp, google.auth) that share no base below Exception.
    except Exception as error:
        raise _cannot_write(location.uri, error) from error


def check_apart(source: Location, output: Location) -> None:
    """Makes sure that what is published is never read back as source.

    Args:
        source: A file, a directory or a glob pattern.
        output: The directory to be written.

    Raises:
        OutputError: The output equals the source, lies below it, or lies where the pattern reaches.
    """
    if source.is_local != output.is_local or type(source.fs) is not type(output.fs):
        return
    is_pattern = has_wildcard(source.path) and not source.exists()
    pattern = _pattern_parts(source) if is_pattern else _literal_parts(source)
    if _overlap(pattern, _resolved_parts(output.path, output.is_local), is_pattern):
        raise OutputError(
            f"The output {output.uri!r} lies inside the source {source.uri!r}, so a later run would read its own rows; "
            "choose an output directory outside the source."
        )


def _overlap(pattern: tuple[str, ...], target: tuple[str, ...], is_pattern: bool) -> bool:
    if not pattern or pattern[0] == "**":
        return True
    if not target:
        return is_pattern
    return fnmatch.fnmatchcase(target[0], pattern[0]) and _overlap(pattern[1:], target[1:], is_pattern)


def _literal_parts(location: Location) -> tuple[str, ...]:
    return tuple(map(glob.escape, _resolved_parts(location.path, location.is_local)))


def _pattern_parts(source: Location) -> tuple[str, ...]:
    parts = PurePosixPath(source.path).parts
    fixed = next(depth for depth, part in enumerate(parts) if has_wildcard(part))
    base = _resolved_parts(str(PurePosixPath(*parts[:fixed])), source.is_local)
    return tuple(map(glob.escape, base)) + parts[fixed:]


def _resolved_parts(path: str, is_local: bool) -> tuple[str, ...]:
    return PurePosixPath(os.path.realpath(path) if is_local else path).parts


def _probe_local(path: str) -> None:
    ancestor = path
    while not os.path.lexists(ancestor):
        ancestor = os.path.dirname(ancestor)
    if not os.path.isdir(ancestor):
        raise OutputError(
            f"Expected a directory that can be written at {path!r}, but {ancestor!r} is not a directory; "
            "choose another output."
        )
    try:
        with contextlib.suppress(FileNotFoundError):
            os.lstat(path)  # says whether the missing names are too long
        _write_unnamed(ancestor)
    except (OSError, ValueError) as error:
        raise _cannot_write(path, error) from error


def _write_unnamed(directory: str) -> None:
    # A file without a name cannot outlive a kill. Filesystems that have none get a named one for an instant.
    if hasattr(os, "O_TMPFILE"):
        try:
            os.close(os.open(directory, os.O_TMPFILE | os.O_WRONLY, 0o600))
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
                raise
    with tempfile.NamedTemporaryFile(prefix=".vae-ops-probe-", dir=directory):
        pass


def _cannot_write(uri: str, error: Exception) -> OutputError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return OutputError(f"Cannot write to {uri!r}: {reason}; choose a directory that this user can write to.")


def _create_object(location: Location, data: bytes) -> bool:
    for _ in range(_CREATE_TRIES):
        try:
            location.fs.pipe_file(location.path, data, mode="create")
        except FileExistsError:
            return location.read_bytes() == data
        except OSError as error:
            # S3's 409: another conditional put of the same key is on its way. The next try meets its outcome.
            if error.errno != errno.EBUSY:
                raise
        else:
            return True
    raise OutputError(f"Others write {location.uri} without end; try again later.")


def _json_bytes(value: Any) -> bytes:
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def _replace_local(path: str, data: bytes, *, create: bool = False) -> bool:
    """Writes a file whole; with `create` only where there is none, which the lock on its staged name decides."""
    directory, name = os.path.split(path)
    staged = os.path.join(directory, f".{name}.tmp")
    descriptor = _lock_staged(staged)
    try:
        if create and os.path.lexists(path):
            os.unlink(staged)
            return False
        os.ftruncate(descriptor, 0)
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        os.fsync(descriptor)
        os.replace(staged, path)
    finally:
        os.close(descriptor)
    _sync_directory(directory)
    return True


def _lock_staged(staged: str) -> int:
    # One fixed name per target keeps kills from piling up litter; the lock keeps two living writers apart.
    while True:
        descriptor = os.open(staged, os.O_CREAT | os.O_RDWR, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_same_file(descriptor, staged):
            return descriptor
        # The writer before us has renamed the file we waited for: it is the published one now.
        os.close(descriptor)


def _is_same_file(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _sync_directory(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_local(path: str) -> None:
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.remove(path)
    except FileNotFoundError:
        return
