"""Nothing that is read runs code or leads elsewhere: the package, hostile bundles, parts and shards."""

import ast
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import CommitProperties, DeltaTable
from deltalake.transaction import AddAction
from listings import listed

from gax_batch.catalog import layout
from gax_batch.catalog.snapshots import Catalog
from gax_batch.errors import FatalError, GaxError, UsageError
from gax_batch.imaging.decoding import Decoder
from gax_batch.models import bundle as bundles
from gax_batch.models.bundle import load_bundle
from gax_batch.sources import open_source, read_unit
from gax_batch.system.machine import MIB, memory_bound

ROOT = Path(__file__).resolve().parents[1]
# Modules that make objects of bytes, or run what they are given.
MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
CALLS = {
    *("os.system", "os.popen", "os.execv", "os.execl", "os.execvp", "os.spawnv", "os.spawnl"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "tempfile.mktemp", "pydoc.locate"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load"),
    *("torch.load", "tf.saved_model.load", "shutil.unpack_archive"),
}
METHODS = {"extractall", "extract", "read_pickle", "to_pickle", "load_model"}
KEYWORDS = {"allow_pickle", "shell", "trust_remote_code"}


def dangers(text: str) -> list[str]:
    """What in a module's text could run what it reads, or extract it to where it wishes."""
    found: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            found += [n for n in names if n.split(".")[0] in MODULES or n in CALLS]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            harmful = isinstance(node.func, ast.Name) and name in BUILTINS
            harmful |= isinstance(node.func, ast.Attribute) and node.func.attr in METHODS
            found += [name] * (harmful or name in CALLS)
            found += [f"{word.arg}=" for word in node.keywords if word.arg in KEYWORDS and not _is_off(word)]
    return found


def _is_off(word: ast.keyword) -> bool:
    return isinstance(word.value, ast.Constant) and word.value.value is False


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from cloudpickle import loads",
        "eval(x)",
        "exec(x)",
        "np.load(f, allow_pickle=True)",
        "subprocess.run(x, shell=True)",
        "os.system(x)",
        "from os import system",
        "yaml.load(f)",
        "tar.extractall(folder)",
        "tf_keras.models.load_model(f)",
    ],
)
def test_what_could_run_data_is_recognized(text: str):
    assert dangers(text)


@pytest.mark.parametrize("text", ["yaml.safe_load(f)", "np.load(f, allow_pickle=False)", "re.compile(x)"])
def test_what_could_not_is_not(text: str):
    assert not dangers(text)


def test_nothing_in_the_package_runs_data():
    files = [path for folder in ("gax_batch", "training") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100
    found = {path.relative_to(ROOT).as_posix(): dangers(path.read_text(encoding="utf-8")) for path in files}
    assert {name: what for name, what in found.items() if what} == {}


# --- bundles


class Exploit:
    """Makes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self._trace,)


def exploit(folder: Path) -> bytes:
    return pickle.dumps(Exploit(folder / "executed"))


def archive(folder: Path) -> bytes:
    """An npz of an array of objects, and of a file that would be written elsewhere."""
    buffer = io.BytesIO()
    objects = np.array([Exploit(folder / "executed")], object)
    np.savez(buffer, **{"a": objects})
    with zipfile.ZipFile(buffer, "a") as zipped:
        zipped.writestr("../../executed", b"x")
    return buffer.getvalue()


def safetensors_of(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(shape: list[int], offsets: list[int]) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": offsets}


HOSTILE: dict[str, Callable[[Path], bytes]] = {
    "pickle": exploit,
    "npz": archive,
    "nothing": lambda _: b"",
    "huge shape": lambda _: safetensors_of({"a": tensor([2**40, 2**20], [0, 8])}, bytes(8)),
    "huge offsets": lambda _: safetensors_of({"a": tensor([2], [0, 2**62])}, bytes(8)),
    "huge header": lambda _: (2**62).to_bytes(8, "little") + b"{}",
    "overlapping": lambda _: safetensors_of({"a": tensor([2], [0, 8]), "b": tensor([2], [0, 8])}, bytes(8)),
    "path": lambda _: safetensors_of({"../../executed": tensor([2**50], [0, 8])}, bytes(8)),
    "nested": lambda _: b"[" * 200_000,
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    arrays = {model: {"a": np.ones(4, np.float32)} for model in bundles.MODELS}
    manifest = {"name": "tiny", "seed": 1, "preprocessing": {}, "calibration": {}}
    bundles.save_bundle(tmp_path / "bundle", manifest, arrays)
    return tmp_path / "bundle"


def refusal(bundle: Path) -> str:
    with memory_bound(512 * MIB), pytest.raises(UsageError) as caught:
        load_bundle(str(bundle))
    assert "\n" not in str(caught.value)
    assert not (bundle.parent / "executed").exists()
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["bundle"]
    return str(caught.value)


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("name", ["bundle.json", *(f"{model}.safetensors" for model in bundles.MODELS)])
def test_every_file_of_a_bundle_may_be_hostile(bundle: Path, name: str, kind: str):
    """Also where its checksum is right: whoever can replace a file can replace the manifest."""
    data = HOSTILE[kind](bundle.parent)
    (bundle / name).write_bytes(data)
    if name != "bundle.json":
        assert re.search(rf"{name}.*sha256", refusal(bundle))
        manifest = json.loads((bundle / "bundle.json").read_text())
        manifest["files"][name]["sha256"] = hashlib.sha256(data).hexdigest()
        (bundle / "bundle.json").write_text(json.dumps(manifest))
    refusal(bundle)


@pytest.mark.parametrize("name", ["../evil", "a/b", "", "x" * 65, 3, None, "a\nb", "-rf"])
def test_the_name_of_a_bundle_is_a_name(bundle: Path, name: object):
    """It becomes part of the bundle's id, and so of every row."""
    manifest = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps(manifest | {"name": name}))
    assert repr(str(name)[:80]) in refusal(bundle)


@pytest.mark.parametrize("files", [{"svr.safetensors": 3}, {"svr.safetensors": None}, {"x": {}}, []])
def test_the_list_of_files_is_checked(bundle: Path, files: object):
    manifest = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps(manifest | {"files": files}))
    refusal(bundle)


def test_other_files_of_a_bundle_are_not_opened_and_links_must_have_the_right_bytes(bundle: Path):
    (bundle / "extra.pkl").write_bytes(exploit(bundle.parent))
    (bundle / "sitecustomize.py").write_text("raise SystemExit")
    expected = load_bundle(str(bundle)).bundle_id
    assert not (bundle.parent / "executed").exists()
    target = bundle / "svr.safetensors"
    target.unlink()
    target.symlink_to("/etc/passwd")
    assert re.search(r"svr\.safetensors.*sha256", refusal(bundle))
    target.unlink()
    target.symlink_to("bayesian.safetensors")  # the same arrays
    assert load_bundle(str(bundle)).bundle_id == expected


def test_a_file_of_terabytes_is_not_read(bundle: Path):
    with (bundle / "svr.safetensors").open("ab") as file:
        file.truncate(1 << 41)
    assert re.search(rf"svr\.safetensors.* {bundles.MAX_FILE_BYTES} ", refusal(bundle))


# --- catalog parts


@pytest.fixture
def catalog(stored_unit) -> Catalog:
    part, options = stored_unit
    catalog = Catalog(options.catalog)
    catalog.commit([part], run_id="run-1", metadata={})
    return Catalog(options.catalog)


def part_of(catalog: Catalog) -> Path:
    (key,) = [part.key for part in catalog.parts()]
    return Path(layout.table(catalog.uri, layout.GALAXIES_TABLE).removeprefix("file://")) / key


def test_one_changed_bit_in_a_page_of_a_part_is_found(catalog: Catalog):
    """A page's checksum tells also of bits that are valid values."""
    path = part_of(catalog)
    data = path.read_bytes()
    chunks = pq.read_metadata(path).row_group(0)
    for index in range(0, chunks.num_columns, 5):
        chunk = chunks.column(index)
        damaged = bytearray(data)
        start = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
        damaged[start + chunk.total_compressed_size - 1] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(FatalError, match=path.name):
            Catalog(catalog.uri).galaxies()


@pytest.mark.parametrize("kind", ["pickle", "npz", "nothing", "huge header", "another schema", "gone"])
def test_a_hostile_part_is_a_damaged_catalog(catalog: Catalog, kind: str):
    path = part_of(catalog)
    path.unlink()
    if kind == "another schema":
        pq.write_table(pa.table({"galaxy_id": [b"\xff\xfe"], "ra": ["x"]}), path)
    elif kind != "gone":
        path.write_bytes(HOSTILE[kind](path.parent))
    with memory_bound(512 * MIB), pytest.raises(FatalError, match=path.name) as caught:
        Catalog(catalog.uri).galaxies()
    assert "\n" not in str(caught.value)
    assert not (path.parent / "executed").exists()


@pytest.mark.parametrize(
    "place", ["../../../secret.parquet", "/etc/passwd", "parts/../../x.parquet", "file:///etc/passwd"]
)
def test_a_log_that_leads_out_of_the_catalog_is_refused(catalog: Catalog, place: str):
    table = DeltaTable(layout.table(catalog.uri, layout.GALAXIES_TABLE).removeprefix("file://"))
    stats = json.dumps({"numRecords": 1})
    table.create_write_transaction(
        [AddAction(place, 9, {}, 0, True, stats)],
        "append",
        table.schema(),
        commit_properties=CommitProperties(),
    )
    with pytest.raises(UsageError, match=re.escape(catalog.uri)):
        Catalog(catalog.uri).parts()


def test_a_part_is_read_from_its_own_folder_whatever_the_log_says_before_its_name(
    catalog: Catalog, tmp_path: Path
):
    key = catalog.parts()[0].key
    other = tmp_path / "elsewhere" / key
    other.parent.mkdir(parents=True)
    shutil.copy(part_of(catalog), other)
    part_of(catalog).unlink()
    table = DeltaTable(layout.table(catalog.uri, layout.GALAXIES_TABLE).removeprefix("file://"))
    leading = os.path.relpath(other, part_of(catalog).parents[2])
    table.create_write_transaction(
        [AddAction(leading, 9, {}, 0, True, json.dumps({"numRecords": 1}))],
        "append",
        table.schema(),
        commit_properties=CommitProperties(),
    )
    with pytest.raises(GaxError):
        Catalog(catalog.uri).galaxies()


# --- shards


def reasons(path: Path) -> list[str | None]:
    found: list[str | None] = read_unit(listed(open_source(str(path))), Decoder())["reason"].to_pylist()
    return found


def test_an_object_that_ray_would_unpickle_is_bytes_to_us(tmp_path: Path):
    """Ray registers an extension type of Arrow whose values are pickles."""
    ray = pytest.importorskip("ray.data._internal.object_extensions.arrow")
    payload = pa.array([exploit(tmp_path)], pa.large_binary())
    objects = pa.ExtensionArray.from_storage(ray.ArrowPythonObjectType(), payload)
    path = tmp_path / "s.parquet"
    pq.write_table(pa.table({"galaxy_id": ["a"], "image": objects}), path)
    assert reasons(path) == ["not_an_image"]
    for columns in ({"galaxy_id": objects}, {"galaxy_id": ["a"], "ra": objects, "dec": [1.0]}):
        pq.write_table(pa.table(columns | {"image": [b"x"]}), path)
        with pytest.raises(UsageError):
            reasons(path)
    assert not (tmp_path / "executed").exists()


def test_metadata_that_ray_would_unpickle_is_not(tmp_path: Path):
    """It did in files of Ray 2.49 to 2.54."""
    pytest.importorskip("ray.data")  # registers the type
    tensors = pa.array([[1, 2, 3, 4]], pa.list_(pa.uint8()))
    metadata = {
        b"ARROW:extension:name": b"ray.data.arrow_tensor",
        b"ARROW:extension:metadata": exploit(tmp_path),
    }
    field = pa.field("image", tensors.type, metadata=metadata)
    schema = pa.schema([pa.field("galaxy_id", pa.string()), field])
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), tensors], schema=schema), tmp_path / "s.parquet")
    with suppress(UsageError):
        reasons(tmp_path / "s.parquet")
    assert not (tmp_path / "executed").exists()
