import numpy as np

from gax_batch import inference, tree
from gax_batch.labels import Labels, votes
from gax_batch.models.bundle import load_bundle
from training import chain, checkpoint
from training.data import Galaxies

COUNT = 20


def test_predictions_are_the_same_whatever_arithmetic_a_machine_prefers(tmp_path, monkeypatch):
    monkeypatch.setattr(chain, "DRAWS", 2)
    monkeypatch.setattr(chain, "TURNED", 2)
    rng = np.random.default_rng(0)
    fractions, reached = votes(rng.gamma(5, size=(COUNT, tree.N_ANSWERS)), np.full(COUNT, 40.0))
    labels = Labels([str(i) for i in range(COUNT)], fractions, reached, np.full(COUNT, -1, np.int8))
    galaxies = Galaxies(labels, rng.integers(0, 256, (COUNT, 106, 106, 3), dtype=np.uint8))
    predictions = []
    for precision in ("float32", "bfloat16"):
        monkeypatch.setattr(inference, "faster_precision", lambda name=precision: name)
        fold = chain.Chain(galaxies, 1, tmp_path / precision, 7)
        fold.folder.mkdir(parents=True)
        chain._predict(fold, dict(load_bundle().arrays))
        predictions.append(checkpoint.load(fold.folder / "predictions.safetensors"))
    assert predictions[0]["bayesian"].shape == (2, len(fold.held_out_rows), tree.N_ANSWERS)
    for name, values in predictions[0].items():
        np.testing.assert_array_equal(values, predictions[1][name])
