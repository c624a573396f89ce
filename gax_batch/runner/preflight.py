"""Whether a run would find what its settings name: input, catalog, bundle. Nothing is planned or kept."""

from collections.abc import Callable, Iterator

from gax_batch import storage
from gax_batch.cluster.kubernetes.rayjob import Problem
from gax_batch.errors import UsageError
from gax_batch.models.bundle import load_catalog_bundle
from gax_batch.models.uncertainty import Calibration
from gax_batch.runner.preparation import open_input
from gax_batch.runner.settings import RunSettings


def survey_problems(settings: RunSettings) -> Iterator[Problem]:
    """What is wrong with a survey's settings, seen from here and with the credentials that are here.

    An empty object is written below the catalog and deleted again, to know that it can be.

    Raises:
        TransientError: A store kept failing.
    """
    looks: dict[str, Callable[[], object]] = {
        "input": lambda: open_input(settings, settings.catalog, keep_index=False),
        "catalog": lambda: storage.check_writable(settings.catalog),
        "bundle": lambda: Calibration.of_bundle(
            load_catalog_bundle(settings.bundle).manifest["calibration"], settings.models
        ),
    }
    for key, look in looks.items():
        try:
            look()
        except UsageError as error:
            what, _, fix = str(error).partition("; ")
            yield Problem(f"survey.{key}", what, fix or "correct the settings")
