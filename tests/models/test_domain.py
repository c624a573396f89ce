"""Another survey is noticed, a selection of the same survey is not."""

import csv
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from simulated_galaxies import OTHER_CAMERAS, galaxies

from gax_batch.errors import UsageError
from gax_batch.imaging.cutout import decode_cutout
from gax_batch.models.appearance import STATISTICS, measure
from gax_batch.models.domain import (
    FAR_LIMIT,
    LEAST_GALAXIES,
    SHIFT_LIMIT,
    Alarm,
    Counts,
    Reference,
    Verdict,
    fit_reference,
    warning_lines,
)

REFERENCE, RUN = 1024, 512


def judged(reference: Reference, images: np.ndarray) -> Verdict:
    return reference.judge(reference.count(images))


@pytest.fixture(scope="module")
def values() -> dict:
    return fit_reference(galaxies(REFERENCE))


@pytest.fixture(scope="module")
def reference(values) -> Reference:
    return Reference(values)


@pytest.fixture(scope="module")
def run() -> np.ndarray:
    return galaxies(RUN, seed=1)


def test_another_sample_of_the_same_survey_is_alike(reference, run):
    verdict = judged(reference, run)
    assert verdict.another_survey is False
    assert verdict.shift < 0.5
    assert verdict.far < 0.05
    assert verdict.reasons == ()


@pytest.mark.parametrize("statistic", range(len(STATISTICS)), ids=[s.name for s in STATISTICS])
def test_a_selection_of_the_same_survey_is_alike(reference, run, statistic):
    """Half of the galaxies, or a fifth of them, by any statistic: the small, the red, the faint."""
    order = np.argsort(measure(run)[:, statistic], kind="stable")
    for chosen in (order[: RUN // 2], order[RUN // 2 :], order[: RUN // 5], order[-RUN // 5 :]):
        assert judged(reference, run[chosen]).another_survey is False


@pytest.mark.parametrize("camera", OTHER_CAMERAS)
def test_another_camera_is_noticed_from_200_galaxies(reference, run, camera):
    verdict = judged(reference, OTHER_CAMERAS[camera](run[:200]))
    assert verdict.another_survey is True
    assert verdict.shift > SHIFT_LIMIT
    assert verdict.reasons
    text = "\n".join(warning_lines(json.loads(json.dumps(verdict.as_dict()))))
    assert all(reason in text for reason in verdict.reasons)


def test_reasons_name_what_differs(reference, run):
    def named(camera: str) -> set[str]:
        reasons = judged(reference, OTHER_CAMERAS[camera](run[:200])).reasons
        return {s.group for s in STATISTICS if any(s.label in reason for reason in reasons)}

    assert "sharpness" in named("blurred")
    assert "noise" in named("noisier")
    assert "color" in named("bluer")


def test_images_of_another_survey_among_others_are_noticed(reference, run):
    mixed = run[:200].copy()
    mixed[:60] = OTHER_CAMERAS["blurred"](mixed[:60])
    verdict = judged(reference, mixed)
    assert verdict.another_survey is True
    assert verdict.far >= FAR_LIMIT


def test_few_images_are_not_judged(reference, run):
    other = OTHER_CAMERAS["blurred"](run[:LEAST_GALAXIES])
    assert judged(reference, other[:-1]).another_survey is None
    assert judged(reference, other).another_survey is True
    empty = reference.judge(Counts())
    assert (empty.galaxies, empty.another_survey, empty.shift, empty.far) == (0, None, 0, 0)
    assert warning_lines(empty.as_dict()) == warning_lines(None) == []


@pytest.mark.parametrize("size", [1, 7, 100, RUN])
def test_counts_of_units_add_up_whatever_their_size(reference, run, size):
    units = [reference.count(run[start : start + size]) for start in range(0, RUN, size)]
    whole = reference.count(run)
    assert Counts.add_up(unit.to_json() for unit in units) == whole
    assert sum(units, Counts()) == whole
    assert whole.galaxies == RUN


def test_a_verdict_does_not_grow_with_the_number_of_galaxies(reference, run):
    counts = reference.count(run)
    many = sum([counts] * 1000, Counts())
    one, thousand = reference.judge(counts), reference.judge(many)
    assert thousand.galaxies == 1000 * one.galaxies
    assert thousand.shift == pytest.approx(one.shift, abs=0.3)
    assert thousand.another_survey is False


def test_a_reference_is_plain_json_of_any_survey(values, run):
    again = Reference(json.loads(json.dumps(values)))
    assert again.count(run) == Reference(values).count(run)
    other = OTHER_CAMERAS["blurred"]
    blurred = Reference(fit_reference(other(galaxies(REFERENCE))))
    assert judged(blurred, other(run)).another_survey is False
    assert judged(blurred, run).another_survey is True
    assert Reference.of_bundle({"name": "older"}) is None
    assert Reference.of_bundle({"domain": values}) is not None
    with pytest.raises(ValueError, match="200"):
        fit_reference(run[:199])


def test_a_survey_without_color_can_be_a_reference(run):
    gray = np.repeat(galaxies(REFERENCE)[..., :1], 3, axis=-1)
    reference = Reference(fit_reference(gray))
    assert judged(reference, np.repeat(run[..., :1], 3, axis=-1)).another_survey is False
    assert judged(reference, run).another_survey is True


@pytest.mark.parametrize(
    "change",
    [
        {"version": 99},
        {"statistics": ["one"]},
        {"quantiles": [[1, 2]]},
        {"quantiles": None},
        {"covariance": np.zeros((len(STATISTICS),) * 2).tolist()},
        {"mean": ["x"] * len(STATISTICS)},
        {"mean": [float("nan")] * len(STATISTICS)},
        {"far": None},
        {"galaxies": 0},
        {"galaxies": float("inf")},
        {"covariance": (-np.eye(len(STATISTICS))).tolist()},
    ],
)
def test_a_reference_that_cannot_be_used_is_refused_in_one_line(values, change):
    with pytest.raises(UsageError) as error:
        Reference.of_bundle({"domain": values | change})
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError):
        Reference.of_bundle({"domain": list(values)})


def test_a_run_in_progress_is_warned_of_once_and_early(reference, run):
    strange = reference.count(OTHER_CAMERAS["blurred"](run[:200]))
    alarm = Alarm(reference)
    assert alarm.see(reference.count(OTHER_CAMERAS["blurred"](run[:199]))) == []
    assert alarm.see(strange)
    assert alarm.see(strange) == []
    calm = Alarm(reference)
    assert calm.see(reference.count(run)) == []
    assert calm.see(strange)
    assert Alarm(None).see(strange) == []


@pytest.fixture(scope="module")
def real(shared_data: Path) -> tuple[Reference, list[str], np.ndarray]:
    """A reference of 1,500 real galaxies; 1,200 others, of files of half the scale, and their ids."""
    files = sorted((shared_data / "kaggle" / "images").glob("*.jpg"))[:1500]
    known = np.stack([decode_cutout(file.read_bytes())[0] for file in files])
    names, images = [], []
    with zipfile.ZipFile(shared_data / "challenge" / "images" / "part-00.zip") as part:
        for name in part.namelist()[-1200:]:
            names.append(name.removesuffix(".jpg"))
            images.append(decode_cutout(part.read(name))[0])
    return Reference(fit_reference(known)), names, np.stack(images)


def test_real_galaxies_of_the_same_survey_are_alike_whatever_their_shape(real, shared_data):
    reference, names, images = real
    assert judged(reference, images).shift < 1
    with (shared_data / "challenge" / "class5.csv").open() as file:
        classes = {row["galaxy_id"]: row["class5"] for row in csv.DictReader(file)}
    found = np.array([classes.get(name, "none") for name in names])
    for kind in ("round", "in_between", "edge_on", "spiral"):
        assert (found == kind).sum() >= LEAST_GALAXIES
        assert judged(reference, images[found == kind]).another_survey is False
    for statistic in measure(images).T:
        order = np.argsort(statistic, kind="stable")
        for chosen in (order[:600], order[600:], order[:120], order[-120:]):
            assert judged(reference, images[chosen]).another_survey is False
    files = sorted((shared_data / "gz2" / "images").glob("*.jpg"))
    balanced = np.stack([decode_cutout(file.read_bytes())[0] for file in files])
    assert judged(reference, balanced).another_survey is False


@pytest.mark.parametrize("camera", OTHER_CAMERAS)
def test_real_galaxies_of_another_camera_are_noticed(real, camera):
    reference, _, images = real
    assert judged(reference, OTHER_CAMERAS[camera](images[:200])).another_survey is True


def test_simulated_galaxies_are_not_real_ones(real, run):
    assert judged(real[0], run[:200]).another_survey is True
