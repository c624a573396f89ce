import json

import numpy as np
import pytest

from gax_batch import tree, uncertainty
from gax_batch.errors import FatalError, UsageError
from gax_batch.evaluation.anomalies import KINDS
from gax_batch.labels import Labels, votes
from gax_batch.models import bayesian, classic, svr
from gax_batch.models.bundle import load_bundle
from gax_batch.models.card import card_text
from training import assemble, build, checkpoint
from training.data import FOLDS, Galaxies

COUNT = 120


@pytest.fixture(scope="module")
def galaxies():
    rng = np.random.default_rng(0)
    raw = rng.gamma(0.8, size=(COUNT, tree.N_ANSWERS)) + 1e-3
    fractions, reached = votes(raw, np.full(COUNT, 40.0))
    classes = np.full(COUNT, -1, np.int8)
    reached[100:], classes[100:] = 0, rng.integers(0, 5, 20)
    windows = rng.integers(0, 256, (COUNT, 106, 106, 3), dtype=np.uint8)
    return Galaxies(Labels([str(i) for i in range(COUNT)], fractions, reached, classes), windows)


def blurred(truth, seed, shape=()):
    noise = np.random.default_rng(seed).normal(0, 0.4, (*shape, *truth.shape))
    return tree.cumulative(tree.conditional(np.exp(np.log(truth + 1e-3) + noise))).astype(np.float32)


@pytest.fixture(scope="module")
def work(galaxies, tmp_path_factory):
    """A training whose folds predict the truth with an error."""
    folder = tmp_path_factory.mktemp("training.work")
    (folder / "fold-all").mkdir()
    models = {"bayesian": bayesian, "classic": classic, "svr": svr}
    for name, module in models.items():
        arrays = module.export_weights(module.build(1))
        if name == "svr":
            arrays |= {"svr/support": np.zeros((3, 256), np.float32)}
        checkpoint.save(folder / "fold-all" / f"export-{name}.safetensors", arrays)
    record = {"record/C": 1.0, "record/epsilon": 0.03, "record/gamma": 0.001, "record/support_vectors": 3.0}
    checkpoint.save(
        folder / "fold-all" / "regressions.safetensors", {k: np.array([v]) for k, v in record.items()}
    )
    for fold in range(FOLDS):
        rows = np.flatnonzero(galaxies.folds == fold)
        truth = galaxies.labels.cumulative[rows]
        outputs = {
            "bayesian": blurred(truth, 1, (4,)),
            "classic": blurred(truth, 2),
            "svr": blurred(truth, 3),
            "closeness": np.full(len(rows), 0.9, np.float32),
            "dropout": blurred(truth, 4, (4,)),
        }
        outputs |= {f"turned/{k}": v for k, v in outputs.items() if k != "dropout"}
        outputs |= {f"anomaly/{kind}": np.full(4, 0.1, np.float32) for kind in KINDS}
        (folder / f"fold-{fold}").mkdir()
        checkpoint.save(folder / f"fold-{fold}" / "predictions.safetensors", outputs)
    return folder


def test_predictions_come_back_in_the_order_of_the_galaxies(galaxies, work):
    outputs = assemble.out_of_fold(galaxies, work)
    assert outputs["bayesian"].shape == (4, COUNT, 37)
    assert all(np.isfinite(values).all() for values in outputs.values())
    assert len(outputs["anomaly/stars"]) == 4 * FOLDS
    rows = np.flatnonzero(galaxies.folds == 2)
    np.testing.assert_array_equal(outputs["svr"][rows], blurred(galaxies.labels.cumulative[rows], 3))


def test_the_bundle_is_calibrated_and_its_card_complete(galaxies, work, tmp_path):
    output = tmp_path / "test-bundle"
    bundle_id = assemble.assemble(galaxies, work, output, 7, [].append)
    loaded = load_bundle(str(output))
    assert loaded.bundle_id == bundle_id
    metrics = loaded.manifest["metrics"]
    assert metrics["out_of_distribution"]["auc"] == 1
    assert metrics["rotation_mean_change"] == 0
    assert metrics["points"]["blend"]["rmse"] < metrics["points"]["mean of training"]["rmse"]
    assert set(metrics["intervals"]) == {"0.5", "0.68", "0.9", "0.95"}
    assert "literal classic CNN" not in metrics["points"]  # it was not trained
    text = card_text(loaded)
    for name in ("blend", "nearest neighbors, pixels", "90% intervals", "AUC 1.000"):
        assert name in text
    usable = uncertainty.Calibration.of_bundle(loaded.manifest["calibration"], ("bayesian", "svr"))
    assert np.isfinite(usable.quantiles).all()


def test_a_missing_fold_is_told(galaxies, work, tmp_path):
    with pytest.raises(FatalError, match="fold 0"):
        assemble.out_of_fold(galaxies, tmp_path)


def test_another_training_does_not_go_on_in_the_same_folder(galaxies, tmp_path):
    build._same_training(tmp_path, galaxies, 7, 1.0)
    build._same_training(tmp_path, galaxies, 7, 1.0)
    assert json.loads((tmp_path / "settings.json").read_text())["seed"] == 7
    with pytest.raises(UsageError, match="another output"):
        build._same_training(tmp_path, galaxies, 8, 1.0)
