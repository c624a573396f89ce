"""Check that the input, the catalog and the bundle of a run exist. Plans nothing and keeps nothing."""

from collections.abc import Callable, Iterator

from gax_batch import storage
from gax_batch.cluster.kubernetes.rayjob import Problem
from gax_batch.errors import UsageError
from gax_batch.models.bundle import load_catalog_bundle
from gax_batch.models.uncertainty import Calibration
from gax_batch.runner.preparation import open_input
from gax_batch.runner.settings import RunSettings


def survey_problems(settings: RunSettings) -> Iterator[Problem]:
    """Yield the problems of the settings of a survey, with the credentials of this process.

    To check that the catalog is writable, an empty object is written below it and deleted.

    Raises:
        TransientError: A store kept failing.
    """
    checks: dict[str, Callable[[], object]] = {
        "input": lambda: open_input(settings, settings.catalog, keep_index=False),
        "catalog": lambda: storage.check_writable(settings.catalog),
        "bundle": lambda: Calibration.of_bundle(
            load_catalog_bundle(settings.bundle).manifest["calibration"], settings.models
        ),
    }
    for key, check in checks.items():
        try:
            check()
        except UsageError as error:
            what, _, fix = str(error).partition("; ")
            yield Problem(f"survey.{key}", what, fix or "correct the settings")
