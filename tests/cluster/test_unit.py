"""A unit's three steps, called one after the other without Ray."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_engine import FakeEngine
from simulated_galaxies import galaxies

from gax_batch.catalog.parts import find_finished
from gax_batch.cluster import unit
from gax_batch.errors import FatalError
from gax_batch.models.domain import Counts, Reference, fit_reference


def test_read_infer_write_give_a_part_of_rows_and_rejects(task, options, tmp_path):
    result = unit.read(task, options)
    assert (len(result.rows), result.state.status) == (5, unit.UnitStatus.READ)
    result = unit.infer(result, FakeEngine(), options)
    assert (len(result.rows), result.state.status) == (5, unit.UnitStatus.INFERRED)
    assert "cutout" not in result.rows.column_names
    result = unit.write(result, options)
    assert (result.rows, result.state.status) == (None, unit.UnitStatus.STORED)
    assert result.state.failure is None
    assert set(result.state.seconds) == {"read", "infer", "write"}
    assert result.part is not None
    assert (result.part.rows, result.part.rejects, result.part.planned) == (4, 1, 5)
    assert result.part.rejects_by_reason == {"empty_file": 1}
    stored = pq.read_table(tmp_path / "catalog" / "galaxies" / result.part.key)
    assert stored["galaxy_id"].to_pylist() == ["000000", "000001", "000003", "000004"]
    assert set(stored["bundle_id"].to_pylist()) == {"bundle-1"}


def test_the_same_unit_gives_the_same_part(task, options):
    parts = []
    for _ in range(2):
        result = unit.infer(unit.read(task, options), FakeEngine(), options)
        parts.append(unit.write(result, options).part)
    assert parts[0] == parts[1]


def test_a_failure_of_the_model_fails_the_unit_with_its_cause(task, options):
    result = unit.infer(unit.read(task, options), FakeEngine(fail_on=4), options)
    result = unit.write(result, options)
    assert result.part is None
    assert "the model returned NaN" in (result.state.failure or "")


def test_a_plan_that_is_gone_fails_the_unit(task, options):
    lost = replace(task, plan_uri=task.plan_uri + ".gone")
    result = unit.infer(unit.read(lost, options), FakeEngine(), options)
    result = unit.write(result, options)
    assert result.part is None
    assert lost.plan_uri in (result.state.failure or "")


def test_a_lost_or_doubled_cutout_is_refused(task, options):
    result = unit.infer(unit.read(task, options), FakeEngine(), options)
    with pytest.raises(FatalError):
        unit.write(replace(result, rows=result.rows.slice(0, 4)), options)
    doubled = pa.concat_tables([result.rows, result.rows.slice(0, 1)])
    with pytest.raises(FatalError):
        unit.write(replace(result, rows=doubled), options)


def test_a_unit_of_rejects_alone_is_a_part_without_rows(task, options, tmp_path):
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"not an image")
    # The objects changed after they were planned, which is told apart from bad bytes.
    result = unit.infer(unit.read(task, options), FakeEngine(), options)
    part = unit.write(result, options).part
    assert part is not None
    assert (part.rows, part.rejects) == (0, 5)
    assert part.rejects_by_reason == {"changed": 5}


def pixels(rows: pa.Table) -> tuple[int, int]:
    """Where the pixels of a table of cutouts are, and how many bytes."""
    (chunk,) = rows["cutout"].chunks
    buffer = chunk.buffers()[1]
    return buffer.address, buffer.size


def test_every_result_survives_arrow_and_no_pixel_is_copied(task, options):
    options = replace(options, keep_draws=True)
    lost = replace(task, plan_uri=task.plan_uri + ".gone")
    read = unit.read(task, options)
    inferred = unit.infer(read, FakeEngine(), options)
    results = [
        unit.UnitResult.not_begun(task),
        unit.read(lost, options),
        read,
        replace(read, rows=read.rows.slice(0, 0)),
        inferred,
        unit.write(inferred, options),
    ]
    for result in results:
        block = result.to_arrow()
        assert len(block) == 1
        again = unit.UnitResult.from_arrow(block)
        assert (again.state, again.part, again.rows) == (result.state, result.part, result.rows)
        assert again.companions == result.companions
        assert type(again.state.status) is unit.UnitStatus
    assert set(inferred.companions) == {"draws", "population"}
    assert pixels(unit.UnitResult.from_arrow(read.to_arrow()).rows) == pixels(read.rows)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(fit_reference(galaxies(256)))


def written(task: unit.UnitTask, options: unit.UnitOptions) -> unit.Part:
    result = unit.infer(unit.read(task, options), FakeEngine(), options)
    part = unit.write(result, options).part
    assert part is not None
    return part


def test_a_unit_counts_how_its_good_images_compare_with_the_reference(task, options, reference):
    part = written(task, replace(options, reference=reference))
    counts = Counts.add_up([part.images])
    assert counts.galaxies == part.rows == 4
    again = find_finished(options.catalog, options.settings_fingerprint, [(part.unit_id, part.fingerprint)])
    assert again == {part.unit_id: part}


def test_the_reference_changes_no_row(task, options, reference, tmp_path):
    plain, compared = written(task, options), written(task, replace(options, reference=reference))
    assert plain.images is None
    galaxies_root = tmp_path / "catalog" / "galaxies"
    one, two = (pq.read_table(galaxies_root / part.key) for part in (plain, compared))
    assert one.equals(two)
    # A key never gets other bytes, and the counts are in the part's footer.
    assert plain.key != compared.key
    assert written(task, options) == plain


def test_a_unit_of_rejects_alone_counts_no_images(task, options, reference, tmp_path):
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"not an image")
    part = written(task, replace(options, reference=reference))
    assert Counts.add_up([part.images]) == Counts()
