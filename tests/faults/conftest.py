"""The table of faults, which is printed when the tests of this folder end."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.survey import Row, Survey

TABLE = pytest.StashKey[list[Row]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--injections", type=int, default=0, help="Fail where fewer faults were injected.")


def pytest_sessionfinish(session: pytest.Session) -> None:
    done = sum(row.injections for row in session.config.stash[TABLE])
    if done < session.config.getoption("--injections", default=0):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLE] = []


@pytest.fixture
def table(request: pytest.FixtureRequest) -> list[Row]:
    """What was found so far in this session."""
    return request.config.stash[TABLE]


@pytest.fixture
def make_survey(tmp_path: Path, table: list[Row]) -> Iterator[Callable[..., Survey]]:
    """Builds a survey of so many galaxies."""
    made: list[Survey] = []

    def make(count: int, name: str = "survey", **settings: Any) -> Survey:
        survey = Survey(tmp_path / name, table, settings)
        survey.add(range(count))
        made.append(survey)
        return survey

    yield make
    for survey in made:
        survey.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash[TABLE]
    if not rows:
        return
    terminalreporter.section("faults")
    terminalreporter.write_line(f"{'fault':58}{'injections':>11}{'lost':>6}{'doubled':>9}{'whole after':>13}")
    for row in rows:
        terminalreporter.write_line(
            f"{row.fault:58}{row.injections:>11,}{row.lost:>6}{row.doubled:>9}{row.seconds:>11.1f} s"
        )
    total = [sum(getattr(row, name) for row in rows) for name in ("injections", "lost", "doubled")]
    terminalreporter.write_line(f"{'all':58}{total[0]:>11,}{total[1]:>6}{total[2]:>9}")
