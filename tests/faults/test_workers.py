"""Workers that die: by themselves, at every step, and of what they are given."""

import json
import re

import pytest
from catalogs import catalog_without_ray
from faults import saboteur
from listings import new_folder

from gax_batch.catalog.snapshots import Catalog
from gax_batch.sources import open_source

UNITS = 24


def from_scratch(survey):
    """What a run without any fault catalogs."""
    source = open_source(str(survey.folder / "images"))
    found = catalog_without_ray(source, str(new_folder() / "catalog"), new_folder())
    return found.galaxies().sort_by("galaxy_id")


def assert_same_bits(survey, without=()):
    rows = from_scratch(survey)
    expected = {row["galaxy_id"]: row["source_version"] for row in rows.to_pylist()}
    assert {row["galaxy_id"] for row in survey.rows().to_pylist()} == expected.keys() - set(without)
    plain = [name for name in survey.rows().column_names if name != "bundle_id"]
    kept = rows.filter([name not in without for name in rows["galaxy_id"].to_pylist()])
    assert survey.rows().select(plain).equals(kept.select(plain))


def test_a_unit_that_kills_its_worker_loses_the_guilty_cutout_alone(make_survey):
    survey = make_survey(16, unit_size=4)
    survey.poison(8, "crash")
    survey.plan(
        {
            "SIGKILL of a reading task": 1,
            "SIGKILL of an engine within a unit": 1,
            "SIGKILL of a write task after its part is stored": 1,
        }
    )
    said = survey.succeed()
    assert survey.rejects() == {"000008": ("decode", "poison")}
    # The unit that is tried alone is named.
    assert Catalog(survey.catalog).rejects()["unit_id"][0].as_py() in said
    assert re.search(r"\b15\b.*\b1\b", said)
    assert_same_bits(survey, without={"000008"})
    survey.balance_strikes()
    version = Catalog(survey.catalog).version
    survey.succeed()
    assert Catalog(survey.catalog).version == version


@pytest.mark.slow
@pytest.mark.parametrize(
    "faults",
    [
        {
            "SIGKILL of a reading task": UNITS,
            "SIGKILL of a write task before its part is stored": UNITS,
            "SIGKILL of an engine within a unit": 8,
        },
        {
            "SIGKILL of a decoding task": UNITS,
            "SIGKILL of a write task after its part is stored": UNITS,
            "SIGKILL of an engine that loads": 3,
        },
    ],
    ids=["before", "after"],
)
def test_every_unit_loses_its_worker_at_every_step(make_survey, faults):
    survey = make_survey(5 * UNITS)
    survey.plan(faults)
    survey.succeed()
    assert survey.rejects() == {}
    assert_same_bits(survey)
    survey.balance_strikes()
    strikes = [fault for _, fault in survey.strikes()]
    assert {fault: strikes.count(fault) for fault in faults} == faults


@pytest.mark.slow
def test_each_kind_of_poison_is_found_and_the_rest_is_cataloged(make_survey):
    survey = make_survey(60, unit_size=20, unit_seconds=15)
    expected = {"000003": ("decode", "poison"), "000025": ("decode", "poison"), "000050": ("infer", "poison")}
    survey.poison(3, "crash")
    survey.poison(25, "loop")
    survey.poison_for_models(50)
    if saboteur.can_exhaust_memory():
        survey.poison(44, "memory")
        expected["000044"] = ("decode", "poison")
    survey.succeed(settings={"max_rejects": 0.2})
    assert survey.rejects() == expected
    assert_same_bits(survey, without=set(expected))
    survey.balance_strikes()


@pytest.mark.slow
def test_an_engine_that_dies_whenever_it_loads_ends_the_run_with_the_cause(make_survey):
    survey = make_survey(20)
    survey.plan({"an engine that never loads": 10_000})
    done = survey.run()
    assert done.returncode == 4
    assert "inferring" in done.stderr
    (record,) = (survey.folder / "catalog" / "runs").rglob("run.json")
    assert json.loads(record.read_text())["status"] == "failed"
    since = max(when for when, _ in survey.strikes())
    survey.plan({})
    survey.succeed()
    survey.balance("an engine that never loads", len(survey.strikes()), since)


@pytest.mark.slow
def test_a_run_that_stalls_says_where(make_survey):
    survey = make_survey(5)
    said = survey.succeed(seconds=8.0, settings={"stall_minutes": 0.05})
    assert re.search(r"\b1 inferring\b.*\binferring\b.*\b[0-9a-f]{16}\b", said)
