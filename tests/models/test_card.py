"""The model card of a small manifest as `training.report` and `training.assemble` write it."""

import copy
import json
import re

import pytest

from gax_batch.gz2 import DEFINITION
from gax_batch.models.bundle import Bundle
from gax_batch.models.card import card_json, card_text, model_card

HELD = {"coverage": 0.9012, "width": 0.2345, "coverage_asked": 0.8923, "width_asked": 0.3456}
SPIRAL = {"coverage": 0.9134, "coverage_asked": 0.8745, "galaxies_asked": 1234}
METRICS = {
    "sample": "representative galaxies that nobody knows",
    "draws": 32,
    "galaxies": {"voted": 1567, "classes": 2345, "largest": 0},
    "points": {"rmse": 0.0987, "questions": {"t04_spiral": {"rmse": 0.0876, "votes_nll": 1.0}}},
    "vote_noise_rmse": 0.0333,
    "models": {
        "blend": {
            "rmse": 0.0912,
            "votes_nll": 81.25,
            "galaxies": 200,
            "rmse_of_some_fractions": 0.0923,
            "class_accuracy": 0.9612,
        },
        "classic": {"rmse": 0.0934, "votes_nll": 82.5, "galaxies": 200, "rmse_of_some_fractions": 0.0945},
    },
    "clear_classes": {"accuracy_by_class": {"round": 0.9789, "edge_on": 0.9167}},
    "intervals": {
        "0.5": {"coverage": 0.5011, "width": 0.1, "coverage_worst_answer": 0.41},
        "0.9": HELD | {"coverage_worst_answer": 0.8712, "questions": {"t04_spiral": SPIRAL}},
    },
    "intervals without the Bayesian spread": {"0.9": {"coverage": 0.9023, "width": 0.2567}},
    "distribution": {
        "all": {"crps": 0.0321, "calibration_error": 0.0123},
        "asked": {"crps": 0.0654, "calibration_error": 0.0234},
        "questions": {"t04_spiral": {"crps": 0.0543}},
    },
    "conditional": {"coverage": 0.9034, "questions": {"t04_spiral": {"coverage": 0.8654}}},
    "epistemic": {"blend": {"coverage_of_draws_alone": 0.4321, "mean_std": 0.0456}},
    "out_of_distribution": {"auc_stars": 0.9876, "auc": 0.9765},
    "rotation_mean_change": 0.0078,
}
LAYER = {"prior_deviation": 0.2722, "deviation_10": 0.00667, "deviation_50": 0.00821, "deviation_90": 0.01115}
TRAINING = {
    "data": "a challenge and a zoo",
    "galaxies": {"all": 31045, "37 fractions": 456, "some fractions": 2987},
    "svr": {"support_vectors": 3789.0, "C": 0.3, "epsilon": 0.06, "gamma": 0.000488, "held_out_rmse": 0.1},
    "posterior": {"block_0": LAYER},
    "evidence": {
        "evidence_lower_bound": -153.2,
        "expected_log_likelihood": -90.1,
        "divergence_per_galaxy": 63.1,
    },
    "ids_sha256": ["0123456789abcdef"] * 3,
    "pixels_sha256": ["fedcba9876543210"] * 3,
}
MANIFEST = {
    "name": "tiny",
    "seed": 7,
    "definition": DEFINITION.name,
    "preprocessing": {"side": 64},
    "calibration": {"secret": 1},
    "training": TRAINING,
    "metrics": METRICS,
    "limits": ["only for SDSS"],
}


def bundle(manifest) -> Bundle:
    return Bundle("tiny-0123456789ab", copy.deepcopy(manifest), {})


def numbers_of(text: str, beginning: str) -> list[str]:
    """The numbers of the one line that begins so."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(beginning)]
    return re.findall(r"\d[\d,.]*%?", line.strip().removeprefix(beginning))


def test_the_card_has_every_number_beside_its_name():
    text = card_text(bundle(MANIFEST))
    assert numbers_of(text, "blend ") == ["0.0912", "0.0923", "81.25", "96.1%"]
    assert numbers_of(text, "classic ") == ["0.0934", "0.0945", "82.50"]
    assert numbers_of(text, "90%  ") == ["90.1%", "89.2%", "87.1%", "0.234", "0.346", "90.2%", "0.257"]
    assert numbers_of(text, "50%  ") == ["50.1%", "41.0%", "0.100"]
    assert numbers_of(text, "t04_spiral") == ["0.0876", "91.3%", "87.5%", "86.5%", "1,234", "0.0543"]
    for fact in (
        "0.0333",
        "round 97.9%",
        "edge_on 91.7%",
        "0.0321",
        "0.012",
        "0.0654",
        "0.023",
        "43.2%",
        "0.0456",
    ):
        assert fact in text
    for fact in ("0.977", "0.988", "0.0078", "3,789", "0.00821", "-153.2", "63.1"):
        assert fact in text


def test_the_card_begins_with_the_definition_and_the_split():
    lines = card_text(bundle(MANIFEST)).splitlines()
    assert "tiny-0123456789ab" in lines[0]
    assert DEFINITION.description in lines[1]
    head = "\n".join(lines[: next(i for i, line in enumerate(lines) if "RMSE" in line)])
    for fact in (
        "a challenge and a zoo",
        "31,045",
        "456",
        METRICS["sample"],
        "1,567",
        "32",
    ):
        assert fact in head
    assert "only for SDSS" in lines[-1]


@pytest.mark.parametrize("part", METRICS)
def test_a_number_that_is_missing_is_left_out(part):
    metrics = {name: value for name, value in METRICS.items() if name != part}
    text = card_text(bundle(MANIFEST | {"metrics": metrics}))
    assert text != card_text(bundle(MANIFEST)) or part == "largest"
    assert "None" not in text


@pytest.mark.parametrize("part", TRAINING)
def test_a_fact_of_the_training_that_is_missing_is_left_out(part):
    training = {name: value for name, value in TRAINING.items() if name != part}
    assert "0.0912" in card_text(bundle(MANIFEST | {"training": training}))


def test_a_bundle_without_numbers_still_has_a_card():
    text = card_text(bundle({"seed": 1, "metrics": {}}))
    assert "tiny-0123456789ab" in text
    assert not re.search(r"None|\d\.\d", text)
    assert json.loads(card_json(bundle({"seed": 1})))["seed"] == 1


def test_another_definition_is_not_described_as_the_catalogs():
    text = card_text(bundle(MANIFEST | {"definition": "weighted"}))
    assert "weighted" in text
    assert DEFINITION.description not in text


def test_the_data_are_the_manifests_without_the_hashes_of_galaxies():
    card = json.loads(card_json(bundle(MANIFEST)))
    assert card == model_card(bundle(MANIFEST))
    assert card["metrics"] == METRICS
    assert card["definition"] == DEFINITION.name
    assert "0123456789abcdef" not in json.dumps(card)
    assert card["training"]["svr"] == TRAINING["svr"]
    assert "calibration" not in card
