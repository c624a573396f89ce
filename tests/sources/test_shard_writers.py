"""Shards as the libraries that people have write them: every form of an image column has such a writer."""

import json
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_images import encoded, galaxy
from listings import listed
from PIL import Image

from gax_batch.errors import UsageError
from gax_batch.imaging.decoding import Decoder
from gax_batch.sources import open_source, read_unit

FINAL = np.stack([galaxy(64, seed=i) for i in range(4)])
RAW = [pixels.tobytes() for pixels in FINAL]
FILES = [encoded(pixels) for pixels in FINAL]
IDS = ["a", "b", "c", "d"]


def with_pandas(image: list[object]) -> Callable[[Path], None]:
    return lambda path: pd.DataFrame({"galaxy_id": IDS, "image": image}).to_parquet(path)


def with_polars(image: object, kind: type[pl.DataType] | pl.DataType) -> Callable[[Path], None]:
    return lambda path: pl.DataFrame({"galaxy_id": IDS, "image": pl.Series(image, dtype=kind)}).write_parquet(
        path
    )


def with_pyarrow(image: pa.Array) -> Callable[[Path], None]:
    return lambda path: pq.write_table(pa.table({"galaxy_id": IDS, "image": image}), path)


def with_duckdb(path: Path) -> None:
    kind = pa.list_(pa.list_(pa.list_(pa.uint8())))
    made = pa.table({"galaxy_id": IDS, "image": pa.array(FINAL.tolist(), kind)})
    duckdb.connect().from_arrow(made).to_parquet(str(path))


def with_datasets(path: Path) -> None:
    """Hugging Face's feature `Image`, which encodes what it is given: a struct of bytes and path."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"galaxy_id": datasets.Value("string"), "image": datasets.Image()})
    rows = {"galaxy_id": IDS, "image": [Image.open(BytesIO(file)) for file in FILES]}
    datasets.Dataset.from_dict(rows, features).to_parquet(path)


def with_datasets_array(path: Path) -> None:
    """Hugging Face's feature `Array3D`: nested lists."""
    datasets = pytest.importorskip("datasets")
    kinds = {"galaxy_id": datasets.Value("string"), "image": datasets.Array3D((64, 64, 3), "uint8")}
    rows = {"galaxy_id": IDS, "image": FINAL}
    datasets.Dataset.from_dict(rows, datasets.Features(kinds)).to_parquet(path)


NESTED = pl.List(pl.List(pl.List(pl.UInt8)))
WRITERS: dict[str, Callable[[Path], None]] = {
    "pandas, encoded": with_pandas([*FILES]),
    "pandas, raw": with_pandas([*RAW]),
    "pandas, flat": with_pandas([pixels.reshape(-1) for pixels in FINAL]),
    "pandas, nested": with_pandas((FINAL / 255).tolist()),
    "Polars, encoded": with_polars(FILES, pl.Binary),
    "Polars, raw": with_polars(RAW, pl.Binary),
    "Polars, nested": with_polars(FINAL.tolist(), NESTED),
    "Polars, Array": with_polars(FINAL, pl.Array(pl.UInt8, (64, 64, 3))),
    "pyarrow, raw": with_pyarrow(pa.array(RAW, pa.binary(12288))),
    "pyarrow, tensor": with_pyarrow(pa.FixedShapeTensorArray.from_numpy_ndarray(FINAL)),
    "pyarrow, as Hugging Face's Image": with_pyarrow(
        pa.array([{"bytes": file, "path": None} for file in FILES])
    ),
    "DuckDB, nested": with_duckdb,
    "datasets, Image": with_datasets,
    "datasets, Array3D": with_datasets_array,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_form_of_an_image_column(tmp_path: Path, writer: str) -> None:
    WRITERS[writer](tmp_path / "a.parquet")
    assert pq.read_metadata(tmp_path / "a.parquet").num_rows == 4
    cutouts = read_unit(listed(open_source(str(tmp_path))), Decoder())
    assert cutouts["detail"].to_pylist() == [None] * 4
    assert cutouts["cutout"].to_pylist() == RAW


RAY = """
import json, sys
from pathlib import Path
import numpy as np, pyarrow.parquet as pq, ray
from bad_images import galaxy
from listings import listed
from gax_batch.imaging.decoding import Decoder
from gax_batch.sources import open_source, read_unit

ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
folder, found = Path(sys.argv[1]), {}
alike = [galaxy(64, seed=i) for i in range(4)]
for name, images in {"alike": alike, "unlike": [*alike[:3], galaxy(80, 70, seed=3)]}.items():
    rows = [{"galaxy_id": f"{name}{i}", "image": pixels} for i, pixels in enumerate(images)]
    ray.data.from_items(rows, override_num_blocks=1).write_parquet(str(folder / name))
    found[name] = str(pq.read_schema(next((folder / name).glob("*.parquet"))).field("image").type)
    members = listed(open_source(str(folder / name)))
    found[f"{name} here"] = [cell.hex() for cell in read_unit(members, Decoder())["cutout"].to_pylist()]
print(json.dumps(found))
"""


def test_tensors_that_ray_data_writes_are_read_with_and_without_ray(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RAY, str(tmp_path)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert "ArrowTensor" in found["alike"]
    assert "ArrowVariableShaped" in found["unlike"]
    for name in ("alike", "unlike"):
        cutouts = read_unit(listed(open_source(str(tmp_path / name))), Decoder())["cutout"].to_pylist()
        assert cutouts[:3] == RAW[:3]
        assert [cutout.hex() for cutout in cutouts] == found[f"{name} here"]


def test_a_column_of_views_is_refused(tmp_path: Path) -> None:
    """Arrow cannot compute the lengths of such cells, which Polars makes if asked for its own types."""
    made = pl.DataFrame({"galaxy_id": IDS, "image": FILES}).to_arrow(compat_level=pl.CompatLevel.newest())
    pq.write_table(made, tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=r"a\.parquet.*image.*binary_view"):
        listed(open_source(str(tmp_path)))
