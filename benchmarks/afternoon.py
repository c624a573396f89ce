"""A whole survey as a user of Ray, Keras and scikit-learn would process it with an afternoon's work.

`python -m benchmarks.afternoon IMAGES OUTPUT` reads a folder of images, calls the Flipout layers 16 times
and the CNN-SVR, and writes Parquet. The work is that of `gax run --draws 16` with the same bundle.
"""

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import ray

from benchmarks.flipout import restored
from benchmarks.galaxies import area_averaged

DRAWS = 16
BATCH = 16
Batch = dict[str, npt.NDArray[Any]]


def shrink(batch: Batch) -> Batch:
    """Return the central 256 of 424 pixels as 64x64."""
    return {"path": batch["path"], "image": area_averaged(batch["image"])}


def extractor(arrays: dict[str, npt.NDArray[np.float32]]) -> Any:
    """Return the CNN-SVR's network in Keras, up to its 256 features."""
    import tf_keras as keras

    from gax_batch.models import layers, svr

    network = svr.build()
    for index in range(len(layers.FILTERS)):
        kernel, bias, scale, shift = (
            arrays[f"block_{index}/{name}"] for name in ("kernel", "bias", "scale", "shift")
        )
        network.get_layer(f"convolution_{index}").set_weights([kernel, bias])
        mean, variance = np.zeros_like(scale), np.full_like(scale, 1 - layers.EPSILON)
        network.get_layer(f"normalization_{index}").set_weights([scale, shift, mean, variance])
    return keras.Model(network.input, network.get_layer("features").output)


def regression(arrays: dict[str, npt.NDArray[np.float32]], answer: int) -> Any:
    """Return scikit-learn's regression of one answer, as it was fitted."""
    from sklearn.svm import SVR

    used = np.flatnonzero(arrays["svr/dual"][:, answer])
    fitted = SVR(gamma=float(arrays["svr/gamma"][0])).fit(np.eye(2, 256), [0.0, 1.0])
    fitted.support_ = np.arange(len(used), dtype=np.int32)
    fitted.support_vectors_ = arrays["svr/support"][used].astype(np.float64)
    fitted._n_support = np.full_like(fitted._n_support, len(used))
    fitted._dual_coef_ = fitted.dual_coef_ = arrays["svr/dual"][used, answer][None].astype(np.float64)
    fitted._intercept_ = fitted.intercept_ = arrays["svr/intercept"][[answer]].astype(np.float64)
    return fitted


class Classifier:
    """Holds the models of one worker."""

    def __init__(self) -> None:
        from gax_batch.models.bundle import load_bundle

        self._arrays = load_bundle().arrays["svr"]
        self._network = restored()
        self._features = extractor(self._arrays)
        answers = range(self._arrays["svr/dual"].shape[1])
        self._regressions = [regression(self._arrays, answer) for answer in answers]

    def __call__(self, batch: Batch) -> Batch:
        from gax_batch.models.layers import cumulative_probabilities

        x = batch["image"].astype(np.float32) / 255
        draws = [cumulative_probabilities(self._network(x, training=False)).numpy() for _ in range(DRAWS)]
        turns = [self._features(np.rot90(x, turn, (1, 2)), training=False).numpy() for turn in range(4)]
        features = (np.mean(turns, axis=0) - self._arrays["svr/mean"]) / self._arrays["svr/deviation"]
        regressed = np.stack([fitted.predict(features) for fitted in self._regressions], axis=1)
        return {
            "path": batch["path"],
            "prob": np.mean(draws, axis=0),
            "std": np.std(draws, axis=0),
            "svr": regressed.astype(np.float32),
        }


def main(images: str, output: str) -> None:
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    pictures = ray.data.read_images(images, mode="RGB", include_paths=True)
    shrunk = pictures.map_batches(shrink, batch_size=BATCH)
    classified = shrunk.map_batches(Classifier, batch_size=BATCH, concurrency=1)
    classified.write_parquet(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
