import hashlib

import numpy as np
import pytest

from gax_batch import gz2
from gax_batch.analysis.evaluation import training_set
from gax_batch.analysis.labels import Labels


@pytest.fixture
def labels():
    values = np.full((3, gz2.N_ANSWERS), 0.5)
    return Labels.of_fractions(["1", "2", "3"], values, 40.0, definition="debiased", numbering="GalaxyID")


@pytest.fixture
def cutouts():
    return np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)


def test_digests_are_of_the_numbering_with_the_id_and_of_the_pixels(labels, cutouts):
    assert training_set.id_digests(labels)[1] == hashlib.sha256(b"GalaxyID:2").hexdigest()[:12]
    assert training_set.pixel_digests(cutouts)[1] == hashlib.sha256(cutouts[1].tobytes()).hexdigest()[:12]


def test_training_galaxies_are_known_by_their_id_or_their_pixels(labels, cutouts):
    manifest = {
        "training": {
            "ids_sha256": sorted([training_set.id_digests(labels)[0], "0" * 12]),
            "pixels_sha256": training_set.pixel_digests(cutouts[2:]),
        }
    }
    assert training_set.is_recorded(manifest)
    assert training_set.trained_by_id(manifest, labels).tolist() == [True, False, False]
    assert training_set.trained_by_pixels(manifest, cutouts).tolist() == [False, False, True]


def test_a_bundle_without_a_record_recognizes_nothing(labels, cutouts):
    for manifest in ({}, {"training": {}}):
        assert not training_set.is_recorded(manifest)
        assert not training_set.trained_by_id(manifest, labels).any()
        assert not training_set.trained_by_pixels(manifest, cutouts).any()
