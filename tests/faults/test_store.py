"""An S3 server that throttles, drops, cuts, hangs, denies and loses what it took."""

import json
import time
from collections.abc import Callable, Iterator
from urllib.request import urlopen

import pytest
from faults.survey import Survey
from s3 import ceph
from s3.faults import Rates
from s3.servers import environment, make_bucket, moto, proxied

pytestmark = pytest.mark.slow

TRIES = 5


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Ceph's gateway, or moto's server where that is not installed."""
    with moto() if ceph.missing_programs() else ceph.running(tmp_path_factory.mktemp("ceph")) as endpoint:
        yield endpoint


def counts(endpoint: str) -> dict[str, int]:
    """What the proxy has done to requests."""
    with urlopen(f"{endpoint}/__counts") as answer:  # noqa: S310
        done: dict[str, int] = json.load(answer)
    return done


def survey_in(server: str, make_survey: Callable[..., Survey], name: str) -> Survey:
    """A survey on a disk whose catalog is in a new bucket."""
    with environment(server):
        bucket = make_bucket(f"faults-{name.replace(' ', '-')}")
    return make_survey(60, catalog=f"{bucket}/catalog")


def run_until_done(survey: Survey) -> None:
    """Run as an operator does: what ends a run in one line, not having outlasted the store, is run again."""
    for _ in range(TRIES):
        done = survey.run(ray=False)
        if done.returncode == 0:
            return
        assert done.returncode == 4, done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
    raise AssertionError(f"not done after {TRIES} runs: {done.stderr}")


@pytest.mark.parametrize(
    ("fault", "rates"),
    [
        ("throttles", Rates(0.15, 0, 0)),
        ("drops connections", Rates(0, 0.12, 0)),
        ("cuts answers", Rates(0, 0, 0.12)),
        ("does not answer in time", Rates(0, 0, 0, hang=0.05)),
        ("loses what it took", Rates(0, 0, 0, lose=0.2)),
    ],
)
def test_a_store_that_fails_now_and_then_costs_nothing_but_time(server, make_survey, fault, rates):
    survey = survey_in(server, make_survey, fault)
    with proxied(server, rates) as endpoint, environment(endpoint, AWS_TIMEOUT="3s"):
        since = time.time()
        for night in range(4):
            survey.add(range(60 + 10 * night, 70 + 10 * night))
            run_until_done(survey)
        done_to = counts(endpoint)
    with environment(server):
        struck = sum(count for what, count in done_to.items() if what != "passed")
        survey.balance(f"S3 that {fault}", struck, since)


@pytest.mark.parametrize("after", [0, 12, 25, 38])
def test_a_store_that_denies_after_a_while_keeps_what_is_finished(server, make_survey, after):
    survey = survey_in(server, make_survey, f"denies-{after}")
    with proxied(server, Rates(0, 0, 0, deny_after=after)) as endpoint, environment(endpoint):
        done = survey.run(ray=False)
        assert done.returncode in (2, 3, 4)
        assert "Traceback" not in done.stderr, done.stderr
        assert ceph.SECRET_KEY not in done.stdout + done.stderr
        denied = counts(endpoint)["denied"]
    with environment(server):
        since = time.time()
        survey.succeed(ray=False)
        survey.balance(f"S3 that denies after {after} requests", denied, since)
