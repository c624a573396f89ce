"""`gax plan`: what a run would do, and that it does nothing."""

from functools import partial
from pathlib import Path

import pytest
from fake_engine import fake_engine
from galaxy_images import write_images
from message_facts import numbers_in

from gax_batch.errors import UsageError
from gax_batch.runner import estimate as module
from gax_batch.runner import run as run_module
from gax_batch.runner.cluster_size import cpu_node
from gax_batch.runner.estimate import Budget, Rates, forecast
from gax_batch.runner.run import run_survey
from gax_batch.runner.settings import load_settings
from gax_batch.system.machine import MIB, Resources
from gax_batch.system.messages import redirect_messages


@pytest.fixture
def survey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_images(tmp_path / "images", 40)
    monkeypatch.setattr(module, "load_engine", partial(fake_engine, seconds=0.05))
    return tmp_path


def lines_of(survey: Path, **flags: object) -> tuple[int, list[str]]:
    calibrate = bool(flags.pop("calibrate", True))
    lines: list[str] = []
    values = {"input": str(survey / "images"), "catalog": str(survey / "catalog"), "unit_size": 16, "cpus": 2}
    with redirect_messages(lines.append):
        return forecast(load_settings(None, values | flags), calibrate=calibrate), lines


def test_it_tells_units_bytes_memory_time_and_problems(survey):
    bad = survey / "images" / "000007.jpg"
    bad.write_bytes(bad.read_bytes()[:400])
    (survey / "images" / "more").mkdir()
    (survey / "images" / "more" / "000001.jpg").write_bytes(b"x" * 1000)
    before = sorted(survey.rglob("*"))
    code, lines = lines_of(survey)
    assert code == 0
    size = sum(path.stat().st_size for path in (survey / "images").rglob("*.jpg"))
    assert numbers_in(lines[0], survey) == ["0", "0", "0", "0", "41", "41"]
    for line, facts in zip(
        lines[1:10],
        [
            ["41", "3"],
            ["new", "41", "3"],
            [f"{size / MIB:,.1f} MiB"],
            ["1", "duplicate_id"],
            ["64 draws", "8 passes", "float"],
            ["MiB"],
            ["40", "1"],
            ["truncated", bad.as_uri()],
            ["/s"],
        ],
        strict=True,
    ):
        assert all(fact in line for fact in facts), line
    assert sorted(survey.rglob("*")) == before


def test_without_calibration_nothing_is_read(survey, monkeypatch):
    monkeypatch.delattr(module, "read_unit")
    nodes: list[tuple[float, ...]] = []
    monkeypatch.setattr(module, "cpu_node", lambda *rates: nodes.append(rates) or cpu_node(*rates))
    code, lines = lines_of(survey, calibrate=False)
    assert code == 0
    assert "MiB" in lines[-4]
    for fact in ("6 cores", "--workers 1", "0.0 h"):
        assert fact in lines[-3]
    assert nodes == [(6,)]  # no rate was measured


def test_a_cluster_is_sized_from_the_measured_rates_and_costs_what_the_user_pays(survey, messages):
    values = {"input": str(survey / "images"), "catalog": str(survey / "catalog"), "unit_size": 16}
    settings = load_settings(None, values | {"engine_gpus": 1, "cpus": 2})
    forecast(settings, budget=Budget(hours=1e-6, gpu_price=3600.0))
    for fact in ("2 cores", "1 GPU", "--workers 3"):
        assert fact in messages[-4]
    assert float(numbers_in(messages[-1])[0]) > 0
    forecast(settings, calibrate=False)
    assert "gax plan" in messages[-1]
    assert "--workers" not in messages[-1]


def test_a_run_that_would_be_refused_says_so(survey, monkeypatch):
    monkeypatch.setattr(module, "available_bytes", lambda: 100 * MIB)
    code, lines = lines_of(survey, calibrate=False)
    assert code == 2
    assert "100 MiB" in lines[-4]


def test_a_mistake_is_the_same_as_of_a_run(survey):
    with pytest.raises(UsageError, match="nowhere"):
        lines_of(survey, input=str(survey / "nowhere"))


def test_the_time_is_the_start_and_the_work_of_reading_and_inference():
    rates = Rates(read=1000.0, infer=100.0, start=10.0)
    assert rates.seconds(50_000, Resources(2, None, 0)) == pytest.approx(10 + 500 + 25)


def test_a_limit_that_leaves_cataloged_galaxies_out_matters_only_where_a_unit_is_redone(survey, monkeypatch):
    values = {"input": str(survey / "images"), "catalog": str(survey / "catalog"), "unit_size": 16, "cpus": 2}
    monkeypatch.setattr(run_module, "load_engine", fake_engine)
    run_survey(load_settings(None, values))
    code, lines = lines_of(survey, limit=20, calibrate=False)
    assert (code, numbers_in(lines[-1])) == (0, ["0", "0"])
    with pytest.raises(UsageError, match=r"--limit 20 .*20 "):
        lines_of(survey, limit=20, full=True, calibrate=False)
