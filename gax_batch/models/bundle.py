"""A model on disk: a folder of `bundle.json` and safetensors files, each listed with its sha256.

A bundle does not contain code. This module does not import TensorFlow, so that a run's driver can use it.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from gax_batch import storage
from gax_batch.errors import UsageError
from gax_batch.gz2 import DEFINITION

FORMAT_VERSION = 3
MANIFEST = "bundle.json"
MODELS = ("bayesian", "classic", "svr")
SHIPPED = Path(__file__).resolve().parents[1] / "bundles"
REMEDY = "use another bundle or train it again"
MAX_FILE_BYTES = 1 << 30

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Arrays = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A loaded, checked bundle.

    Attributes:
        bundle_id: Its name and the first 12 hexadecimal digits of the sha256 of its manifest, which contains
            the checksums of all other files.
        manifest: `bundle.json`: name, seed, definition, preprocessing, training, calibration, metrics,
            files.
        arrays: float32 arrays by model and name.
    """

    bundle_id: str
    manifest: dict[str, Any]
    arrays: Mapping[str, Arrays]


def load_bundle(uri: str | None = None) -> Bundle:
    """Read a bundle and check all of its files.

    Args:
        uri: Folder of the bundle, a path or URI; None for the shipped bundle.

    Raises:
        UsageError: It is missing, incomplete, changed since it was written, or has an unknown format.
    """
    place = _shipped() if uri is None else storage.normalize_uri(uri)
    raw = _read(place, MANIFEST)
    manifest = _parse(place, raw)
    arrays = {model: _arrays(place, manifest, model) for model in MODELS}
    return Bundle(f"{manifest['name']}-{hashlib.sha256(raw).hexdigest()[:12]}", manifest, arrays)


def load_catalog_bundle(uri: str | None = None) -> Bundle:
    """Read a bundle whose fractions may enter a catalog, whose columns state a definition.

    Args:
        uri: See `load_bundle`.

    Raises:
        UsageError: As for `load_bundle`; or the bundle does not state a definition of its fractions, or
            another one than `gax_batch.gz2.DEFINITION`.
    """
    bundle = load_bundle(uri)
    name = bundle.manifest.get("definition")
    if name != DEFINITION.name:
        what = "does not state the definition of its fractions"
        if name is not None:
            what = f"predicts {str(name)[:80]!r} fractions"
        raise UsageError(
            f"the bundle {bundle.bundle_id} {what}, but the columns of a catalog are {DEFINITION.name} "
            f"fractions; {REMEDY}"
        )
    return bundle


def save_bundle(folder: Path, manifest: Mapping[str, Any], arrays: Mapping[str, Arrays]) -> str:
    """Write a bundle.

    Args:
        folder: Folder of the bundle. Created if it does not exist.
        manifest: The contents of `bundle.json` without `format_version` and `files`.
        arrays: float32 arrays by model and name.

    Returns:
        The id of the bundle.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for model in MODELS:
        data = safetensors.numpy.save(
            {k: np.ascontiguousarray(v, np.float32) for k, v in sorted(arrays[model].items())}
        )
        name = f"{model}.safetensors"
        (folder / name).write_bytes(data)
        files[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    whole = {"format_version": FORMAT_VERSION, **manifest, "files": files}
    raw = (json.dumps(whole, indent=1, sort_keys=True) + "\n").encode()
    (folder / MANIFEST).write_bytes(raw)
    return f"{manifest['name']}-{hashlib.sha256(raw).hexdigest()[:12]}"


def _shipped() -> str:
    found = sorted(path.parent for path in SHIPPED.glob(f"*/{MANIFEST}"))
    if not found:
        raise UsageError("this installation has no bundle; reinstall gax-batch or pass --bundle URI")
    return storage.normalize_uri(str(found[-1]))


def _read(place: str, name: str) -> bytes:
    uri = storage.join(place, name)
    try:
        if storage.stat(uri).size > MAX_FILE_BYTES:
            raise UsageError(f"{name} of the bundle {place} is larger than {MAX_FILE_BYTES} bytes; {REMEDY}")
        return storage.read_bytes(uri)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"no {name} in the bundle {place}; check --bundle, which names the folder of {MANIFEST}"
        ) from None
    except PermissionError:
        raise UsageError(
            f"no permission to read {name} of the bundle {place}; check its mode or your credentials"
        ) from None


def _parse(place: str, raw: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError):
        raise UsageError(f"{MANIFEST} of the bundle {place} is not JSON; {REMEDY}") from None
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise UsageError(
            f"the bundle {place} has format version {version!r}, this release reads {FORMAT_VERSION}; "
            "use a matching release of gax-batch or another bundle"
        )
    missing = {"name", "seed", "files", "calibration", "preprocessing"} - manifest.keys()
    if missing or not isinstance(manifest["files"], dict):
        raise UsageError(
            f"{MANIFEST} of the bundle {place} lacks {', '.join(sorted(missing)) or 'files'}; {REMEDY}"
        )
    if not (isinstance(manifest["name"], str) and _NAME.fullmatch(manifest["name"])):
        raise UsageError(
            f"{MANIFEST} of the bundle {place} has the name {str(manifest['name'])[:80]!r}; letters, digits "
            f"and . _ - are allowed, at most 64; {REMEDY}"
        )
    for name, entry in manifest["files"].items():
        if not isinstance(entry, dict):
            raise UsageError(f"{MANIFEST} of the bundle {place} lacks a checksum of {name!r}; {REMEDY}")
        if name != Path(name).name or "\\" in name or name in {"", ".", ".."}:
            raise UsageError(
                f"{MANIFEST} of the bundle {place} names a file outside its folder, {name!r}; {REMEDY}"
            )
    return dict(manifest)


def _arrays(place: str, manifest: Mapping[str, Any], model: str) -> Arrays:
    name = f"{model}.safetensors"
    if name not in manifest["files"]:
        raise UsageError(f"{MANIFEST} of the bundle {place} does not list {name}; {REMEDY}")
    data = _read(place, name)
    if hashlib.sha256(data).hexdigest() != manifest["files"][name].get("sha256"):
        raise UsageError(
            f"{name} of the bundle {place} does not match its sha256, so it was changed or damaged; "
            f"copy it again or {REMEDY}"
        )
    try:
        arrays: dict[str, npt.NDArray[np.float32]] = safetensors.numpy.load(data)
    except (SafetensorError, ValueError, TypeError, LookupError, MemoryError):
        raise UsageError(f"{name} of the bundle {place} is not a safetensors file; {REMEDY}") from None
    return arrays
