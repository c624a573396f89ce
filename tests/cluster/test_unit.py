"""A unit's three steps, called one after the other without Ray."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import FakeEngine
from simulated import galaxies

from gax_batch.catalog.parts import find_finished
from gax_batch.cluster import unit
from gax_batch.errors import FatalError
from gax_batch.models.domain import Counts, Reference, fit_reference


def test_read_infer_write_give_a_part_of_rows_and_rejects(task, options, tmp_path):
    block = unit.read(task, options)
    assert len(block) == 5
    block = unit.infer(block, FakeEngine(), options)
    assert len(block) == 5
    assert "cutout" not in block.column_names
    result = unit.parse_result(unit.result_row(unit.write(block, options)))
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
        block = unit.infer(unit.read(task, options), FakeEngine(), options)
        parts.append(unit.write(block, options).part)
    assert parts[0] == parts[1]


def test_a_failure_of_the_model_fails_the_unit_with_its_cause(task, options):
    block = unit.infer(unit.read(task, options), FakeEngine(fail_on=4), options)
    result = unit.write(block, options)
    assert result.part is None
    assert "the model returned NaN" in (result.state.failure or "")


def test_a_plan_that_is_gone_fails_the_unit(task, options):
    lost = replace(task, plan_uri=task.plan_uri + ".gone")
    block = unit.infer(unit.read(lost, options), FakeEngine(), options)
    result = unit.write(block, options)
    assert result.part is None
    assert lost.plan_uri in (result.state.failure or "")


def test_a_lost_or_doubled_cutout_is_refused(task, options):
    block = unit.infer(unit.read(task, options), FakeEngine(), options)
    with pytest.raises(FatalError):
        unit.write(block.slice(0, 4), options)
    with pytest.raises(FatalError):
        unit.write(pa.concat_tables([block, block.slice(0, 1)]), options)


def test_a_unit_of_rejects_alone_is_a_part_without_rows(task, options, tmp_path):
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"not an image")
    # The objects changed after they were planned, which is told apart from bad bytes.
    block = unit.infer(unit.read(task, options), FakeEngine(), options)
    part = unit.write(block, options).part
    assert part is not None
    assert (part.rows, part.rejects) == (0, 5)
    assert part.rejects_by_reason == {"changed": 5}


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(fit_reference(galaxies(256)))


def written(task: unit.UnitTask, options: unit.UnitOptions) -> unit.Part:
    block = unit.infer(unit.read(task, options), FakeEngine(), options)
    part = unit.parse_result(unit.result_row(unit.write(block, options))).part
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
