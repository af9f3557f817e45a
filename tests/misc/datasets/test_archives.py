"""Hostile archives: whatever is planted in any archive that a command reads is refused, and nothing lies outside."""

import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from test_imagenet import CLASSES, class_tar, devkit_members, tar_of, train_members, val_members
from test_tiny_imagenet import TOP, miniature

from misc.datasets.archives import TarArchive, ZipArchive
from misc.errors import UserError
from scripts.prepare_dataset import main

SECRET = b"do not overwrite"


def planted(name: str, outside: Path, content: bytes = b"planted") -> list[tuple[tarfile.TarInfo, bytes]]:
    """Return the members of a tar that try to write outside its folder by the trick `name`."""
    names = {"parent": "../outside.JPEG", "absolute": str(outside / "outside.JPEG")}
    info = tarfile.TarInfo(names.get(name, "inside.JPEG"))
    info.size = len(content)
    if name in ("symbolic link", "hard link"):
        info.type = tarfile.SYMTYPE if name == "symbolic link" else tarfile.LNKTYPE
        info.linkname, info.size = str(outside / "secret.JPEG"), 0
        through = tarfile.TarInfo(info.name)
        through.size = len(content)
        return [(info, b""), (through, content)]
    if name == "device":
        info.type, info.size, info.devmajor, info.devminor = tarfile.CHRTYPE, 0, 1, 3
        return [(info, b"")]
    if name == "folder above":
        info.name, info.type, info.size = "../outside", tarfile.DIRTYPE, 0
        return [(info, b"")]
    return [(info, content)]


def tar_with(members: dict[str, bytes], name: str, outside: Path, mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for member, content in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        if name in LIES:
            lie = tarfile.TarInfo(next(iter(members)))  # a name that is expected
            lie.size = LIES[name]
            tar.addfile(lie)  # the header alone
        else:
            for info, content in planted(name, outside):
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


LIES = {"too large": 1 << 33, "negative": -1024}
TRICKS = ["parent", "absolute", "symbolic link", "hard link", "device", "folder above", *LIES]


def official(folder: Path) -> dict[str, Path]:
    names = {
        "train": "ILSVRC2012_img_train.tar",
        "val": "ILSVRC2012_img_val.tar",
        "devkit": "ILSVRC2012_devkit_t12.tar.gz",
    }
    return {part: folder / name for part, name in names.items()}


def plant_in_imagenet(place: str, trick: str, folder: Path, outside: Path) -> list[str]:
    """Write ImageNet's archives with a malicious member in one of them; return the command's arguments."""
    paths, wnid = official(folder), sorted(CLASSES)[1]
    train = train_members()
    if place == "class tar":
        train[f"{wnid}.tar"] = tar_with({f"{wnid}_1.JPEG": b"x"}, trick, outside, "w")
    plain = {"train": (train, "w"), "val": (val_members(), "w"), "devkit": (devkit_members(), "w:gz")}
    for part, (members, mode) in plain.items():
        content = tar_with(members, trick, outside, mode) if part == place else tar_of(members, mode)
        paths[part].write_bytes(content)
    return [
        "imagenet",
        *(
            f"--{part}={paths[path]}"
            for part, path in (("train-tar", "train"), ("val-tar", "val"), ("devkit", "devkit"))
        ),
    ]


@pytest.fixture
def outside(tmp_path) -> Path:
    """A folder that no archive may touch, with a file in it that a link may point at."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.JPEG").write_bytes(SECRET)
    return folder


def refused(arguments: list[str], root: Path, outside: Path, capsys) -> str:
    """Run the command, check that it leaves no file anywhere, and return its error line."""
    before = set(root.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--output", str(root / "deep" / "data")])
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    left = set(root.rglob("*")) - before
    assert not [path for path in left if "deep" not in path.relative_to(root).parts]
    assert not (root / "deep" / "data").exists()
    assert [path.name for path in outside.iterdir()] == ["secret.JPEG"]
    assert (outside / "secret.JPEG").read_bytes() == SECRET and (outside / "secret.JPEG").stat().st_nlink == 1
    return line


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize("place", ["devkit", "train", "val", "class tar"])
def test_nothing_planted_in_imagenets_archives_gets_out(tmp_path, outside, capsys, place, trick):
    arguments = plant_in_imagenet(place, trick, tmp_path, outside)
    line = refused(arguments, tmp_path, outside, capsys)
    archive = official(tmp_path)["train" if place == "class tar" else place].name
    assert archive in line
    lying = {"devkit": "meta.mat", "val": "ILSVRC2012_val_", "train": ".tar", "class tar": "_1.JPEG"}[place]
    member = {"parent": "../outside.JPEG", "absolute": "outside.JPEG", "folder above": "../outside"}.get(trick)
    assert (member or (lying if trick in LIES else "inside.JPEG")) in line


def zip_with(trick: str, outside: Path) -> bytes:
    """Return Tiny ImageNet's archive with a malicious member."""
    member = next(name for name in miniature() if name.endswith("_1.JPEG"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in miniature().items():
            file.writestr(name, content)
        info = zipfile.ZipInfo(ZIP_TRICKS[trick].format(outside=outside))
        kind = {"symbolic link": stat.S_IFLNK, "device": stat.S_IFCHR}.get(trick, stat.S_IFREG)
        info.external_attr = (kind | 0o777) << 16
        if trick not in ("too large", "too small"):
            file.writestr(info, str(outside / "secret.JPEG"))
    content = bytearray(buffer.getvalue())
    if trick in ("too large", "too small"):  # the size that the central directory declares
        place = content.rindex(member.encode()) - 46 + 24
        (size,) = struct.unpack_from("<I", content, place)
        struct.pack_into("<I", content, place, size + 7 if trick == "too large" else size - 7)
    return bytes(content)


ZIP_TRICKS = {
    "parent": "../outside.JPEG",
    "parent below": f"{TOP}/train/../../../outside.JPEG",
    "backslashes": "..\\outside.JPEG",
    "absolute": "{outside}/outside.JPEG",
    "drive": "C:/outside.JPEG",
    "symbolic link": f"{TOP}/train/link",
    "device": f"{TOP}/train/device",
    "too large": "_1.JPEG",
    "too small": "_1.JPEG",
}


@pytest.mark.parametrize("trick", ZIP_TRICKS)
def test_nothing_planted_in_tiny_imagenets_archive_gets_out(tmp_path, outside, capsys, trick):
    archive = tmp_path / "tiny-imagenet-200.zip"
    archive.write_bytes(zip_with(trick, outside))
    line = refused(["tiny-imagenet", f"--archive={archive}"], tmp_path, outside, capsys)
    assert archive.name in line
    assert ZIP_TRICKS[trick].format(outside=outside)[:40].replace("\\", "\\\\") in line.replace("\\\\", "\\\\")


def test_a_sparse_file_cannot_fill_the_disk(tmp_path):
    """GNU's sparse files declare any size in a header of 512 bytes."""
    info = tarfile.TarInfo("sparse.JPEG")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (0, 0)  # one empty region
    header[483:495] = b"%011o\0" % (1 << 32)  # the size as it would be unpacked
    header[148:156] = b"%06o\0 " % (sum(header) - sum(header[148:156]) + 8 * 32)
    path = tmp_path / "sparse.tar"
    path.write_bytes(bytes(header) + bytes(1024))
    with tarfile.open(path) as tar:
        assert tar.getmembers()[0].size == 1 << 32
    with pytest.raises(UserError, match=r"sparse\.tar holds 'sparse\.JPEG', a sparse file"):
        TarArchive(path)


def gnu_long_name(size: int) -> bytes:
    """Return the header that announces the name of the next member in `size` bytes."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, size
    return info.tobuf(tarfile.GNU_FORMAT)


def test_forged_headers_cost_no_memory_and_no_traceback(tmp_path):
    path = tmp_path / "headers.tar"
    path.write_bytes(gnu_long_name(200 << 20) + bytes(1024))
    with pytest.raises(UserError, match=r"headers\.tar is damaged .*209,715,200 bytes, expected at most 16,777,216"):
        TarArchive(path)
    path.write_bytes((gnu_long_name(512) + bytes(512)) * 5000 + bytes(1024))
    with pytest.raises(UserError, match=r"headers\.tar is damaged .*recursion"):
        TarArchive(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_zip_compressed_by_another_method_is_refused(tmp_path, method):
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("member", b"x" * 1000)
    with pytest.raises(UserError, match=r"other\.zip holds 'member', compressed by another method than deflate"):
        ZipArchive(path)


@pytest.mark.parametrize("opened", [TarArchive, ZipArchive])
def test_what_is_no_archive_is_said_in_one_line(tmp_path, opened: Callable):
    path = tmp_path / "foreign"
    path.write_bytes(b"foreign" * 300)
    with pytest.raises(UserError, match=r"foreign is damaged or no (tar|zip) file") as refusal:
        opened(path)
    assert "\n" not in str(refusal.value)


def test_a_sound_archive_is_read_as_it_is(tmp_path):
    path = tmp_path / "sound.tar"
    path.write_bytes(tar_of({"./a": b"12345", "b": b""}))
    with TarArchive(path) as archive:
        assert list(archive.members) == ["a", "b"]
        assert archive.read(archive.members["a"]) == b"12345"
        archive.copy(archive.members["a"], tmp_path / "copied")
    assert (tmp_path / "copied").read_bytes() == b"12345"
    path.write_bytes(class_tar(sorted(CLASSES)[0]))
    with TarArchive(path) as archive:
        assert len(archive.members) == 3
