"""What lies beside a part: written before it, the same bytes for the same rows, read back by galaxy."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalogs import age, local
from fake_engine import FakeEngine, known_draws

from gax_batch import storage
from gax_batch.catalog import companions, layout
from gax_batch.catalog import parts as module
from gax_batch.catalog.draws import DRAWS, count_draws, draws_table, read_draws
from gax_batch.catalog.snapshots import Catalog
from gax_batch.catalog.sums import SUMS, Grouping
from gax_batch.catalog.vacuum import vacuum
from gax_batch.cluster import unit
from gax_batch.errors import FatalError, UsageError
from gax_batch.gz2 import ANSWERS, N_ANSWERS


def folder(options: unit.UnitOptions, kind: str) -> Path:
    return Path(options.catalog) / kind


def store(task, options, engine=None):
    part = unit.write(unit.infer(unit.read(task, options), engine or FakeEngine(), options), options).part
    assert part is not None
    return part


@pytest.fixture
def kept(task, options):
    """A committed catalog of four galaxies with their draws."""
    options = replace(options, keep_draws=True, grouping=Grouping(1))
    Catalog(options.catalog).commit([store(task, options)], run_id="run-1", metadata={})
    return options


def test_companions_have_the_key_of_their_part(task, options):
    part = store(task, replace(options, keep_draws=True))
    for kind in layout.COMPANIONS:
        assert (folder(options, kind) / part.key).is_file()


def test_draws_are_kept_only_when_asked_for(task, options):
    part = store(task, options)
    assert (folder(options, layout.POPULATION) / part.key).is_file()
    assert not folder(options, layout.DRAWS).exists()


@pytest.mark.parametrize(("galaxies", "draws", "counted"), [(3, 8, 8), (1, 256, 256), (0, 8, 0)])
def test_the_number_of_draws_is_in_the_footer(tmp_path, galaxies, draws, counted):
    ids = pa.chunked_array([[f"g{i}" for i in range(galaxies)]], pa.string())
    table = draws_table(ids, np.zeros((galaxies, draws, N_ANSWERS)))
    storage.write_bytes(layout.companion(str(tmp_path), layout.DRAWS, "part"), companions.encode(table))
    assert count_draws(str(tmp_path), "part") == counted
    assert count_draws(str(tmp_path), "another part") == 0


def test_companions_are_written_before_their_part(task, options, monkeypatch):
    written = []
    monkeypatch.setattr(module.storage, "write_bytes", lambda uri, data: written.append(uri))
    store(task, replace(options, keep_draws=True))
    kinds = [uri.removeprefix(options.catalog).split("/")[1] for uri in written]
    assert kinds == ["draws", "population", "rejects", "galaxies"]


def test_other_companions_never_get_the_same_key(task, options):
    variants = [options, replace(options, keep_draws=True), replace(options, grouping=Grouping(2))]
    keys = [store(task, each).key for each in variants]
    assert len(set(keys)) == 3
    assert store(task, options).key == keys[0]


def test_the_same_rows_give_the_same_bytes_and_a_row_group_for_each_grouping(kept):
    key = Catalog(kept.catalog).parts()[0].key
    file = folder(kept, layout.POPULATION) / key
    (table,) = companions.read(kept.catalog, layout.POPULATION, [key], SUMS)
    assert companions.encode(table) == file.read_bytes()
    metadata = pq.read_metadata(file)
    groups = [metadata.row_group(i).column(0).statistics for i in range(metadata.num_row_groups)]
    assert [(g.min, g.max) for g in groups] == [("all", "all"), ("healpix1", "healpix1")]
    (some,) = companions.read(kept.catalog, layout.POPULATION, [key], SUMS, grouping="healpix1")
    assert set(some["grouping"].to_pylist()) == {"healpix1"}
    assert 0 < len(some) < len(table)


def test_draws_are_read_back_by_galaxy_in_any_order(kept):
    rows = Catalog(kept.catalog).galaxies(["galaxy_id", *(f"{a}_prob" for a in ANSWERS)])
    ids = rows["galaxy_id"].to_pylist()
    prob = np.stack([rows[f"{a}_prob"].to_numpy() for a in ANSWERS], axis=1)
    draws = read_draws(kept.catalog, ids[::-1])
    assert draws.shape == (4, 4, 37)
    assert draws.dtype == np.float32
    # Half a unit in the last of float16's 11 bits, of numbers below 1.
    np.testing.assert_allclose(draws, known_draws(prob)[::-1], atol=2**-12)
    assert read_draws(kept.catalog, [ids[2], ids[2]]).shape == (2, 4, 37)
    assert read_draws(kept.catalog, []).shape[0] == 0


def test_draws_of_many_parts_are_found(catalog, make_part, tmp_path):
    parts = [make_part(name, [f"{name}{i}" for i in range(3)]) for name in "ab"]
    for number, part in enumerate(parts):
        ids = pa.chunked_array([[f"{'ab'[number]}{i}" for i in range(3)]])
        values = np.full((3, 2, 37), number) + np.arange(3)[:, None, None] / 8
        data = companions.encode(draws_table(ids, values))
        storage.write_bytes(layout.companion(catalog, layout.DRAWS, part.key), data)
    Catalog(catalog).commit(parts, run_id="run-1", metadata={})
    draws = read_draws(catalog, ["b1", "a2", "b0"])
    np.testing.assert_array_equal(draws[:, 0, 0], [1.125, 0.25, 1.0])


def test_draws_that_are_not_there_are_refused(kept, task, options, tmp_path):
    with pytest.raises(UsageError, match="zzz"):
        read_draws(kept.catalog, ["000000", "zzz"])
    without = replace(options, catalog=str(tmp_path / "without"))
    Catalog(without.catalog).commit([store(task, without)], run_id="run-1", metadata={})
    with pytest.raises(UsageError, match="--keep-draws"):
        read_draws(without.catalog, ["000000"])


def test_a_torn_companion_is_damage(kept):
    key = Catalog(kept.catalog).parts()[0].key
    file = local(kept.catalog) / layout.DRAWS / key
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(FatalError, match=key):
        list(companions.read(kept.catalog, layout.DRAWS, [key], DRAWS))


def test_what_an_interrupted_first_run_leaves_is_no_obstacle(task, options, monkeypatch):
    real = storage.write_bytes

    def die(uri, data):
        if "/galaxies/" in uri:
            raise OSError("killed")
        real(uri, data)

    with monkeypatch.context() as patch:
        patch.setattr(module.storage, "write_bytes", die)
        block = unit.infer(unit.read(task, options), FakeEngine(), options)
        assert "killed" in (unit.write(block, options).state.failure or "")
    assert folder(options, layout.POPULATION).is_dir()
    Catalog(options.catalog).commit([store(task, options)], run_id="run-1", metadata={})


def test_a_unit_of_rejects_alone_has_empty_companions(task, options, tmp_path):
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"not an image")
    options = replace(options, keep_draws=True)
    part = store(task, options)
    (sums,) = companions.read(options.catalog, layout.POPULATION, [part.key], SUMS)
    (draws,) = companions.read(options.catalog, layout.DRAWS, [part.key], DRAWS)
    assert len(sums) == len(draws) == 0


def test_a_unit_larger_than_a_slice_gives_the_rows_and_sums_of_one_slice(task, options, monkeypatch):
    options = replace(options, keep_draws=True)
    whole = store(task, options)
    monkeypatch.setattr(unit, "SLICE_ROWS", 3)
    sliced = store(task, options)
    for kind, schema in ((layout.DRAWS, DRAWS), (layout.POPULATION, SUMS)):
        one, two = (next(companions.read(options.catalog, kind, [p.key], schema)) for p in (whole, sliced))
        if kind == layout.DRAWS:
            assert one.equals(two)
        flat = [pa.compute.list_flatten(t[schema.names[-1]]).to_numpy() for t in (one, two)]
        np.testing.assert_allclose(*flat, rtol=1e-9)


def test_companions_are_deleted_with_their_part_or_long_after_it_should_have_come(kept):
    catalog = Catalog(kept.catalog)
    (name,) = catalog.parts()
    own = set(local(catalog.uri).rglob(f"parts/*/{Path(name.key).name}"))
    assert len(own) >= 3
    # As a unit leaves it that was killed before it had written its part.
    orphan = local(catalog.uri) / layout.POPULATION / name.key.replace(name.unit_id, "f" * 16)
    orphan.write_bytes(b"sums")
    assert vacuum(catalog.uri, 1).parts == 0
    os.utime(orphan, (1e9, 1e9))
    assert vacuum(catalog.uri, 1).parts == 1
    assert not orphan.exists()
    catalog.commit([], run_id="run-2", metadata={}, removed=[name.unit_id])
    age(catalog.uri, 40)
    assert vacuum(catalog.uri, 30).parts == len(own)
    assert not any(file.exists() for file in own)
