"""Small units with made-up values, written and committed the way a run does it."""

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pytest

from gax_batch.catalog.parts import Part, write_unit
from gax_batch.catalog.schema import galaxies_table, rejects_table
from gax_batch.gz2 import ANSWERS, QUESTION_NAMES
from gax_batch.sources.base import CUTOUT_SCHEMA
from gax_batch.storage import normalize_uri

MakePart = Callable[..., Part]


def make_cutouts(
    ids: list[str], *, reason: str | None = None, stage: str = "decode", prefix: str = ""
) -> pa.Table:
    count = len(ids)
    return pa.table(
        {
            "galaxy_id": ids,
            "ra": [float(i) if i % 3 else None for i in range(count)],
            "dec": [float(-i) if i % 3 else None for i in range(count)],
            "source_uri": [f"s3://survey/{prefix}{name}.jpg" for name in ids],
            "source_version": [f"v-{name}" for name in ids],
            "flags": [0] * count,
            "attempts": [None] * count,
            "stage": [stage if reason else None] * count,
            "reason": [reason] * count,
            "detail": ["as found" if reason else None] * count,
            "cutout": [None] * count,
        },
        schema=CUTOUT_SCHEMA,
    )


def make_model_columns(count: int, value: float = 0.25) -> dict[str, object]:
    quantities = {a: ("prob", "std", "lo", "hi", "svr") for a in ANSWERS}
    quantities |= dict.fromkeys(QUESTION_NAMES, ("entropy", "mutual_info"))
    columns: dict[str, object] = {
        f"{name}_{q}": np.full(count, value, np.float32) for name, qs in quantities.items() for q in qs
    }
    return columns | {
        "gz2_class": ["Er"] * count,
        "gz2_class_margin": np.full(count, value, np.float32),
        "ood_score": np.zeros(count, np.float32),
        "out_of_distribution": np.zeros(count, bool),
    }


def hex16(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.fixture
def cutouts():
    """Build `CUTOUT_SCHEMA` rows from galaxy ids."""
    return make_cutouts


@pytest.fixture
def model_columns():
    """Build what models give for N cutouts."""
    return make_model_columns


@pytest.fixture
def catalog(tmp_path) -> str:
    return normalize_uri(str(tmp_path / "catalog"))


@pytest.fixture
def make_part(catalog) -> MakePart:
    """Write a unit of good and bad galaxies and return its part."""

    def make(
        unit: str,
        good: list[str],
        bad: list[str] | None = None,
        *,
        version: str = "1",
        run_id: str = "run-1",
        settings: str = "settings",
        root: str = catalog,
        unit_id: str | None = None,
        fingerprint: str | None = None,
        **reject: str,
    ) -> Part:
        unit_id = unit_id or hex16(unit)
        galaxies = galaxies_table(
            make_cutouts(good),
            make_model_columns(len(good)),
            unit_id=unit_id,
            bundle_id="bundle",
            run_id=run_id,
        )
        rejected = make_cutouts(bad or [], **({"reason": "truncated"} | reject))
        return write_unit(
            root,
            settings,
            galaxies,
            rejects_table(rejected, unit_id=unit_id, run_id=run_id),
            unit_id=unit_id,
            fingerprint=fingerprint or hex16(unit + version),
            planned=len(good) + len(bad or []),
        )

    return make


@pytest.fixture(scope="session")
def s3_bucket() -> Iterator[str]:
    """A bucket on an S3 server of this process, and the environment that leads there."""
    boto3 = pytest.importorskip("boto3")
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    patch = pytest.MonkeyPatch()
    for name, value in environment.items():
        patch.setenv(name, value)
    boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"]).create_bucket(Bucket="surveys")
    yield "s3://surveys"
    patch.undo()
    server.stop()
