"""The Bayesian CNN: Gaussian posteriors over every kernel, trained by Flipout, run by coherent draws.

Training perturbs the weights of each example pseudo-independently (Flipout, Wen et al. 2018, ICLR). Inference
instead fixes S weight draws `mean + deviation * noise` and applies the same S networks to every galaxy. They
are ordinary convolutions, and their model errors stay correlated over a whole survey, as real model errors
are. Draws come in antithetic pairs, `mean + deviation * noise` and `mean - deviation * noise` (Hammersley &
Morton 1956): contributions that are linear in the weights cancel exactly in their mean.
"""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.special

from gax_batch.gz2 import N_ANSWERS
from gax_batch.models import DRAW_SET, FIRST_DRAWS, layers
from gax_batch.models.runtime import tf

KERNELS = ("block_0", "block_1", "block_2", "hidden", "logits")
# Initial standard deviation in units of the prior's. At this value convolutions still distinguish galaxies.
FIRST_DEVIATION = 0.03
FIRST_DENSE_DEVIATION = 0.2
ORIENTATIONS = DRAW_SET // 2


def _fan_in(shape: Any) -> int:
    return math.prod(int(n) for n in shape[:-1])


def prior_deviation(shape: Any) -> float:
    """Return the standard deviation of a kernel's zero-mean Gaussian prior: sqrt(2 / fan-in), He et al. 2015.

    A unit Gaussian (TFP's default) on 1,152 inputs would imply activations 24 times too large.
    """
    return math.sqrt(2.0 / _fan_in(shape))


def _prior(dtype: Any, shape: Any, _name: Any, _trainable: Any, _add_variable: Any) -> Any:
    import tensorflow_probability as tfp

    distribution = tfp.distributions.Normal(
        tf.zeros(shape, dtype), tf.constant(prior_deviation(shape), dtype)
    )
    return tfp.distributions.Independent(distribution, reinterpreted_batch_ndims=len(shape))


def _posterior(seed: int, first: float) -> Any:
    """Return a kernel's initial posterior: He-initialized means, deviations far below the prior's."""
    import tensorflow_probability as tfp
    import tf_keras as keras

    def make(dtype: Any, shape: Any, name: Any, trainable: Any, add_variable: Any) -> Any:
        rho = math.log(math.expm1(first * prior_deviation(shape)))
        return tfp.layers.default_mean_field_normal_fn(
            loc_initializer=keras.initializers.HeNormal(seed=seed),
            untransformed_scale_initializer=keras.initializers.Constant(rho),
        )(dtype, shape, name, trainable, add_variable)

    return make


def _bayesian(layer: Any, seed: int, *arguments: Any, first: float, **options: Any) -> Any:
    import tensorflow_probability as tfp
    import tf_keras as keras

    return layer(
        *arguments,
        kernel_posterior_fn=_posterior(seed, first),
        kernel_prior_fn=_prior,
        bias_posterior_fn=tfp.layers.default_mean_field_normal_fn(
            is_singular=True, loc_initializer=keras.initializers.Zeros()
        ),
        seed=seed,
        **options,
    )


def build(seed: int = 0) -> Any:
    """Return the Keras model for training: 893,285 parameters, images `[N, 64, 64, 3]` to logits `[N, 37]`.

    Its `losses` are the five Kullback-Leibler divergences from posterior to prior, in nats.
    """
    with warnings.catch_warnings():
        # TensorFlow Probability calls deprecated interfaces of distutils and Keras.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        return _build(seed)


def _build(seed: int) -> Any:
    import tensorflow_probability as tfp
    import tf_keras as keras

    x = images = keras.Input((64, 64, 3), name="images")
    for index, filters in enumerate(layers.FILTERS):
        convolution = _bayesian(
            tfp.layers.Convolution2DFlipout,
            seed + index,
            filters,
            3,
            first=FIRST_DEVIATION,
            padding="same",
            activation="relu",
            name=f"block_{index}",
        )
        x = layers.block(x, convolution, index)
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    first, layer = FIRST_DENSE_DEVIATION, tfp.layers.DenseFlipout
    x = _bayesian(layer, seed + 3, 256, first=first, activation="relu", name="hidden")(x)
    logits = _bayesian(layer, seed + 4, N_ANSWERS, first=first, name="logits")(x)
    return keras.Model(images, logits, name="bayesian")


def deviations(model: Any) -> list[Any]:
    """Return the variables that determine the standard deviations of the convolutions' posterior."""
    convolutions = [model.get_layer(name) for name in KERNELS[: len(layers.FILTERS)]]
    return [layer.kernel_posterior.distribution.scale.pretransformed_input for layer in convolutions]


def export_weights(model: Any) -> dict[str, npt.NDArray[np.float32]]:
    """Return the trained posterior as float32 arrays: `mean`, `deviation` and `bias` of each layer."""
    arrays: dict[str, npt.NDArray[np.float32]] = {}
    for name in KERNELS:
        layer = model.get_layer(name)
        posterior = layer.kernel_posterior.distribution
        arrays[f"{name}/mean"] = np.asarray(posterior.loc, np.float32)
        arrays[f"{name}/deviation"] = np.asarray(posterior.scale, np.float32)
        arrays[f"{name}/bias"] = np.asarray(layer.bias_posterior.mean(), np.float32)
    for index in range(len(layers.FILTERS)):
        arrays |= layers.export_normalization(model, index)
    return arrays


def noise(seed: int, draw: int, shapes: list[tuple[int, ...]]) -> list[npt.NDArray[np.float32]]:
    """Return the standard normal noise of one weight draw, one array per shape.

    Raw bits of NumPy's Philox counter generator, a stable stream with the key (seed, draw), pass through the
    inverse normal distribution. Draw k is therefore the same on every machine and for any number of draws.

    Args:
        seed: Seed of the bundle.
        draw: Number of the draw.
        shapes: Shapes of the arrays.

    Returns:
        float32 arrays of these shapes.
    """
    sizes = [math.prod(shape) for shape in shapes]
    generator = np.random.Philox(key=np.array([seed, draw], np.uint64))
    bits = generator.random_raw(sum(sizes)) >> np.uint64(11)
    normal = scipy.special.ndtri((bits.astype(np.float64) + 0.5) * 2.0**-53).astype(np.float32)
    parts = np.split(normal, np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def draw_kernels(
    arrays: Mapping[str, npt.NDArray[np.float32]], seed: int, draw: int
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the kernels of one weight draw, `mean + deviation * noise`, by layer.

    Draws k and k + 8 (k mod 16 below 8) have the same orientation and opposite noise. The first 8 draws have
    all orientations.

    Args:
        arrays: The posterior, as `export_weights` returns it.
        seed: Seed of the bundle.
        draw: Number of the draw.
    """
    shapes = [arrays[f"{name}/mean"].shape for name in KERNELS]
    mirrored = draw // ORIENTATIONS % 2 == 1
    noises = noise(seed, draw - ORIENTATIONS if mirrored else draw, shapes)
    sign = np.float32(-1 if mirrored else 1)
    return {
        name: arrays[f"{name}/mean"] + sign * arrays[f"{name}/deviation"] * epsilon
        for name, epsilon in zip(KERNELS, noises, strict=True)
    }


def stages(draws: int) -> list[range]:
    """Return the ranges of draws to compute in turn: whole sets, doubling the number of draws each time."""
    ends = [FIRST_DRAWS]
    while ends[-1] < draws:
        ends.append(min(2 * ends[-1], draws))
    return [range(start, stop) for start, stop in zip([0, *ends], ends, strict=False)]


def monte_carlo_error(draws: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the standard error of the mean over draws, which come in antithetic pairs per orientation.

    The mean of a pair is one independent sample (Owen 2013, Monte Carlo theory, methods and examples, section
    8.2), and the orientations are strata (ibid., section 8.4). The error therefore follows from the scatter
    of pairs with the same orientation.

    Args:
        draws: Cumulative fractions, float32 `[S, N, 37]`, in two or more whole sets of 16.

    Returns:
        float32 `[N]`, the largest error over the answers.
    """
    pairs = draws.reshape(-1, 2, ORIENTATIONS, *draws.shape[1:]).mean(axis=1)
    variance = pairs.var(axis=0, ddof=1).mean(axis=0) / (ORIENTATIONS * len(pairs))
    return np.asarray(np.sqrt(variance).max(axis=-1), np.float32)


class Predictor:
    """The networks of fixed draws for inference. Call it inside a `tf.function` with one static shape."""

    def __init__(
        self,
        arrays: layers.Arrays,
        dtype: Any,
        *,
        seed: int,
        draws: range,
        parallel: int = 1,
        products: bool = False,
    ) -> None:
        """Build the networks.

        Args:
            arrays: The posterior, as `export_weights` returns it.
            dtype: Data type of the convolutions.
            seed: Seed of the bundle.
            draws: Numbers of the S draws, starting at a multiple of 8.
            parallel: Number of concurrent draws, each on one thread.
            products: Run the first block as a matrix product (see `layers.patches`), for GPUs.
        """
        self._parallel, self._products = parallel, products
        convolutions = KERNELS[: len(layers.FILTERS)]
        stacks: dict[str, list[Any]] = {name: [] for name in KERNELS}
        for draw in draws:
            for name, kernel in draw_kernels(arrays, seed, draw).items():
                if name in convolutions:
                    kernel = layers.turned_back(kernel, draw % ORIENTATIONS).astype(dtype.as_numpy_dtype)
                if name == convolutions[0] and products:
                    kernel = layers.as_product(kernel)
                stacks[name].append(kernel)
        self._kernels = {name: tf.constant(np.stack(stack)) for name, stack in stacks.items()}
        self._arrays = {
            name: tf.constant(value)
            for name, value in arrays.items()
            if not name.endswith(("/mean", "/deviation"))
        }
        self._count = len(draws)

    def __call__(self, images: Any) -> Any:
        """Return probabilities, float32 `[S, N, 37]`, of images `[N, 64, 64, 3]`.

        Draw k uses orientation k mod 8.
        """
        inputs = layers.patches(images) if self._products else images
        # A rolled loop. An unrolled one takes seconds to trace, and holds the activations of all draws.
        return tf.map_fn(
            lambda k: self._one(inputs, {name: stack[k] for name, stack in self._kernels.items()}),
            tf.range(self._count),
            parallel_iterations=self._parallel,
            fn_output_signature=tf.float32,
        )

    def _one(self, inputs: Any, kernels: dict[str, Any]) -> Any:
        convolutions = [kernels[name] for name in KERNELS[: len(layers.FILTERS)]]
        x = layers.trunk(inputs, convolutions, self._arrays, "SAME")
        x = tf.nn.relu(x @ kernels["hidden"] + self._arrays["hidden/bias"])
        return layers.cumulative_probabilities(x @ kernels["logits"] + self._arrays["logits/bias"])
