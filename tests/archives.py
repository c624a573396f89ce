"""Zips of images, and tars of any members."""

import io
import shutil
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path


def pack_zip(archive: Path, folder: Path, names: Iterable[str], prefix: str = "") -> None:
    """Put files of a folder into a zip."""
    with zipfile.ZipFile(archive, "w") as opened:
        for name in names:
            opened.write(folder / name, f"{prefix}{name}")


def write_zips(place: Path, folder: Path) -> Path:
    """The five images of a folder: three in two zips, one of them in a folder, and two beside them."""
    (place / "more").mkdir(parents=True)
    pack_zip(place / "first.zip", folder, ["000000.jpg"], "images_training_rev1/")
    pack_zip(place / "more" / "second.zip", folder, ["000001.jpg", "000002.jpg"])
    for name in ("000003.jpg", "more/000004.jpg"):
        shutil.copy(folder / name.removeprefix("more/"), place / name)
    return place


def tar_bytes(*members: tuple[str, bytes], **fields: object) -> bytes:
    """A tar of named members; `fields` are attributes of every header."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in fields.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write_tar(path: Path, *members: tuple[str, bytes], **fields: object) -> Path:
    """Write what `tar_bytes` returns."""
    path.write_bytes(tar_bytes(*members, **fields))
    return path
