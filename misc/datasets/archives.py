"""Tar and zip archives as untrusted data: every member is checked before anything is written.

No extraction function is used. Every member must be a regular file or a folder whose name stays inside the archive; a
file shorter than it declares is an error. Callers write what `read` and `copy` give them, and use a name only after it
fully matches the official pattern, which contains no folder.
"""

import gzip
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, cast

from misc.errors import UserError

CHUNK = 1 << 20
# All that zipfile raises on foreign or damaged bytes, on a password, and on an unknown compression.
ZIP_DAMAGES = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OSError)
# tarfile recurses once per extended header.
TAR_DAMAGES = (tarfile.TarError, zlib.error, EOFError, ValueError, OSError, RecursionError)
MAX_HEADER_BYTES = 1 << 24  # tarfile reads extended headers whole


class _BoundedReads:
    """A file that refuses to read more than `limit` bytes in one call, as tarfile does for a forged header."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self._file, self._limit = file, limit
        self.seek, self.tell, self.seekable, self.close = file.seek, file.tell, file.seekable, file.close

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self._limit:
            raise tarfile.ReadError(f"a read of {size:,} bytes, expected at most {self._limit:,}")
        return self._file.read(size)


class TarArchive:
    """The regular files of a tar, checked.

    Args:
        path: the archive, as errors name it.
        file: the file object to read; None opens `path`.
        compressed: whether it is gzipped.
        accepts: tells whether a file of this name is expected.
        expected: the expected files in words, for the error message.
        max_member_bytes: largest size of a member.

    Attributes:
        members: the files by name, without a leading "./"; folders are left out.

    Raises:
        UserError: a file that is damaged or no tar, or a member that is not one of the expected files: a link, a
            device, a sparse file, a name that leads out of the archive, a size that the archive does not have.
    """

    def __init__(
        self,
        path: Path | str,
        file: IO[bytes] | None = None,
        *,
        compressed: bool = False,
        accepts: Callable[[str], object] = bool,
        expected: str = "files",
        max_member_bytes: int | None = None,
    ) -> None:
        self.name = str(path)
        self.members: dict[str, tarfile.TarInfo] = {}
        self._place = "at its beginning"
        self._limit = max_member_bytes
        limit = max(MAX_HEADER_BYTES, max_member_bytes or 0)
        try:
            opened = file or (gzip.open(path) if compressed else open(path, "rb"))  # noqa: SIM115  closed by __exit__
            self._file = _BoundedReads(opened, limit)
            self._tar = tarfile.open(path, "r:", cast(IO[bytes], self._file))  # noqa: SIM115  closed by __exit__
        except TAR_DAMAGES as error:
            raise self.damaged(error) from error
        try:
            # TarFile's own iterator never ends on a negative size.
            while (member := self._next()) is not None:
                self._check(member)
                name = member.name.removeprefix("./")
                self._place = f"behind {name[:200]!r}"
                if member.isdir():
                    continue
                if not accepts(name):
                    raise UserError(f"{self.name} holds {name[:200]!r}: expected {expected}")
                self.members[name] = member
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "TarArchive":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the archive's file."""
        self._tar.close()
        self._file.close()

    def open(self, member: tarfile.TarInfo) -> IO[bytes]:
        """Return a member's content as a file object."""
        file = self._tar.extractfile(member)
        assert file is not None  # `members` holds regular files alone
        return file

    def read(self, member: tarfile.TarInfo) -> bytes:
        """Return a member's content.

        Raises:
            UserError: it has fewer bytes than it declares.
        """
        try:
            content = self.open(member).read()
        except TAR_DAMAGES as error:
            raise self.damaged(error, member) from error
        if len(content) != member.size:
            raise self._wrong_size(member, len(content))
        return content

    def copy(self, member: tarfile.TarInfo, path: Path) -> None:
        """Write a member's content to a new file.

        Raises:
            UserError: it has fewer bytes than it declares.
        """
        written = 0
        with open(path, "xb") as target:
            try:
                source = self.open(member)
                while chunk := source.read(CHUNK):
                    written += target.write(chunk)
            except TAR_DAMAGES as error:
                raise self.damaged(error, member) from error
        if written != member.size:
            raise self._wrong_size(member, written)

    def damaged(self, error: Exception, member: tarfile.TarInfo | None = None) -> UserError:
        """Return the error to raise for bytes that cannot be read."""
        place = self._place if member is None else f"in {member.name[:200]!r}"
        return UserError(
            f"{self.name} is damaged or no tar file, {place} ({_one_line(error)}): "
            "compare its MD5 with the official one"
        )

    def _next(self) -> tarfile.TarInfo | None:
        try:
            return self._tar.next()
        except TAR_DAMAGES as error:
            raise self.damaged(error) from error

    def _check(self, member: tarfile.TarInfo) -> None:
        if fault := _unsafe_name(member.name) or _unsafe_kind(member):
            raise UserError(f"{self.name} holds {member.name[:200]!r}, {fault}: expected plain files inside it")
        if member.size < 0 or (self._limit is not None and member.size > self._limit):
            limit = "" if self._limit is None else f" to {self._limit:,}"
            raise UserError(
                f"{self.name} holds {member.name[:200]!r} of {member.size:,} bytes: expected 0{limit or ' or more'}"
            )

    def _wrong_size(self, member: tarfile.TarInfo, size: int) -> UserError:
        return UserError(
            f"{self.name} holds {member.name[:200]!r} with {size:,} of the {member.size:,} bytes that it declares: "
            f"compare the archive's MD5 with the official one"
        )


class ZipArchive:
    """The regular files of a zip, checked.

    Attributes:
        members: the files by name; folders are left out.

    Raises:
        UserError: a file that is damaged or no zip, or a member that is a link or a device, or whose name leads out of
            the archive.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except ZIP_DAMAGES as error:
            raise UserError(f"{path} is damaged or no zip file ({_one_line(error)}): fetch it again") from error
        self.members: dict[str, zipfile.ZipInfo] = {}
        try:
            for member in self._zip.infolist():
                kind = stat.S_IFMT(member.external_attr >> 16)
                fault = _unsafe_name(member.filename) or _unsafe_mode(kind)
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    fault = fault or "compressed by another method than deflate"
                if fault:
                    raise UserError(f"{path} holds {member.filename[:200]!r}, {fault}: expected plain files inside it")
                if not member.is_dir():
                    self.members[member.filename] = member
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> "ZipArchive":
        return self

    def __exit__(self, *exception: object) -> None:
        self._zip.close()

    def read(self, name: str, max_bytes: int) -> bytes:
        """Return the content of one of `members`.

        Raises:
            UserError: larger than `max_bytes`, of another size than the member declares, or damaged.
        """
        size = self.members[name].file_size
        if size > max_bytes:
            raise UserError(f"{name} in {self.name} has {size:,} bytes: expected at most {max_bytes:,}")
        try:
            content = self._zip.read(self.members[name])
        except ZIP_DAMAGES as error:
            raise UserError(
                f"{name} in {self.name} is damaged ({_one_line(error)}): fetch the archive again"
            ) from error
        if len(content) != size:
            raise UserError(
                f"{name} in {self.name} has {len(content):,} of the {size:,} bytes that it declares: "
                "fetch the archive again"
            )
        return content


def _unsafe_name(name: str) -> str | None:
    """Return why a name leads out of the archive's folder; None if it does not."""
    if PurePosixPath(name).is_absolute() or name.startswith("\\") or name[1:2] == ":":
        return "an absolute path"
    if ".." in name.replace("\\", "/").split("/"):
        return "a path that leads out of the archive"
    return None


def _unsafe_kind(member: tarfile.TarInfo) -> str | None:
    if member.issym() or member.islnk():
        return f"a {'symbolic' if member.issym() else 'hard'} link to {member.linkname[:200]!r}"
    if member.issparse():
        return "a sparse file"
    return None if member.isfile() or member.isdir() else "neither file nor folder"


def _unsafe_mode(kind: int) -> str | None:
    """Return why a file type of `stat` is not allowed, or None; archives made on Windows have the type 0."""
    if kind == stat.S_IFLNK:
        return "a symbolic link"
    return None if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "neither file nor folder"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
