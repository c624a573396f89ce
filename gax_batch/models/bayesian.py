"""The Bayesian CNN: Gaussian posteriors over every kernel, trained by Flipout, run by coherent draws.

Training perturbs the weights of each example pseudo-independently (Flipout, Wen et al. 2018, ICLR). Inference
instead fixes S weight draws `mean + deviation * noise` and applies the same S networks to every galaxy. They
are ordinary convolutions, and their model errors stay correlated over a whole survey, as real model errors
are. Several draws share the convolutions of one pass (`gax_batch.models.nesting`). Passes and dense layers
come in antithetic pairs, `mean + deviation * noise` and `mean - deviation * noise` (Hammersley & Morton
1956): contributions that are linear in the weights cancel exactly in their mean.
"""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.special

from gax_batch.gz2 import N_ANSWERS
from gax_batch.models import layers
from gax_batch.models.nesting import PASS_SET, Nesting
from gax_batch.models.runtime import tf

CONVOLUTIONS = ("block_0", "block_1", "block_2")
DENSE = ("hidden", "logits")
KERNELS = (*CONVOLUTIONS, *DENSE)
# Initial standard deviation in units of the prior's. At this value convolutions still distinguish galaxies.
FIRST_DEVIATION = 0.03
FIRST_DENSE_DEVIATION = 0.2
# Streams of noise of a pass's heads; those below are the convolutions'.
_HEADS = 1 << 20


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
    convolutions = [model.get_layer(name) for name in CONVOLUTIONS]
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


def noise(seed: int, stream: int, shapes: list[tuple[int, ...]]) -> list[npt.NDArray[np.float32]]:
    """Return the standard normal noise of one stream, one array per shape.

    Raw bits of NumPy's Philox counter generator, a stable stream with the key (seed, stream), pass through
    the inverse normal distribution. They are the same on every machine and for any number of draws.

    Args:
        seed: Seed of the bundle.
        stream: Number of the stream.
        shapes: Shapes of the arrays.

    Returns:
        float32 arrays of these shapes.
    """
    sizes = [math.prod(shape) for shape in shapes]
    generator = np.random.Philox(key=np.array([seed, stream], np.uint64))
    bits = generator.random_raw(sum(sizes)) >> np.uint64(11)
    normal = scipy.special.ndtri((bits.astype(np.float64) + 0.5) * 2.0**-53).astype(np.float32)
    parts = np.split(normal, np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def pass_kernels(arrays: layers.Arrays, seed: int, number: int) -> dict[str, npt.NDArray[np.float32]]:
    """Return the kernels of the convolutions of one pass, `mean + deviation * noise`, by layer.

    Passes p and p + 4 of a set of 8 (see `gax_batch.models.nesting`) have opposite noise.

    Args:
        arrays: The posterior, as `export_weights` returns it.
        seed: Seed of the bundle.
        number: Number of the pass.
    """
    whole, position = divmod(number, PASS_SET)
    mirrored, pair = divmod(position, PASS_SET // 2)
    return _kernels(arrays, CONVOLUTIONS, seed, whole * (PASS_SET // 2) + pair, mirrored=bool(mirrored))


def head_kernels(
    arrays: layers.Arrays, seed: int, number: int, head: int
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the kernels of the dense layers of one head, by layer.

    Heads 2 h and 2 h + 1 have opposite noise.

    Args:
        arrays: The posterior, as `export_weights` returns it.
        seed: Seed of the bundle.
        number: Number of the pass.
        head: Number of the head within the pass.
    """
    pair, mirrored = divmod(head, 2)
    stream = (number + 1) * _HEADS + pair
    return _kernels(arrays, DENSE, seed, stream, mirrored=bool(mirrored))


def _kernels(
    arrays: layers.Arrays, names: Sequence[str], seed: int, stream: int, *, mirrored: bool
) -> dict[str, npt.NDArray[np.float32]]:
    noises = noise(seed, stream, [arrays[f"{name}/mean"].shape for name in names])
    sign = np.float32(-1 if mirrored else 1)
    return {
        name: arrays[f"{name}/mean"] + sign * arrays[f"{name}/deviation"] * epsilon
        for name, epsilon in zip(names, noises, strict=True)
    }


def orientation(number: int) -> int:
    """Return the orientation of a pass, see `layers.turned_back`; antithetic passes differ by 180 degrees.

    A rotation by 180 degrees changes pooled features little, so that opposite changes of the weights still
    have nearly opposite effects.
    """
    mirrored, pair = divmod(number % PASS_SET, PASS_SET // 2)
    return (0, 1, 4, 5)[pair] + 2 * mirrored


class Predictor:
    """The networks of fixed draws for inference. Call it inside a `tf.function` with one static shape."""

    def __init__(
        self,
        arrays: layers.Arrays,
        dtype: Any,
        *,
        seed: int,
        nesting: Nesting,
        first: int = 0,
        parallel: int = 1,
        products: bool = False,
    ) -> None:
        """Build the networks.

        Args:
            arrays: The posterior, as `export_weights` returns it.
            dtype: Data type of the convolutions.
            seed: Seed of the bundle.
            nesting: Passes and heads of the draws.
            first: First draw to compute, a multiple of the draws of a set of passes.
            parallel: Number of concurrent passes, each on one thread.
            products: Run the first block as a matrix product (see `layers.patches`), for GPUs.
        """
        self._parallel, self._products = parallel, products
        places = [nesting.place(draw) for draw in range(first, nesting.draws)]
        passes = sorted({number for number, _ in places})
        heads = 1 + max(head for _, head in places)
        stacks: dict[str, list[Any]] = {name: [] for name in KERNELS}
        for number in passes:
            for name, kernel in pass_kernels(arrays, seed, number).items():
                kernel = layers.turned_back(kernel, orientation(number)).astype(dtype.as_numpy_dtype)
                stacks[name].append(layers.as_product(kernel) if name == KERNELS[0] and products else kernel)
            each = [head_kernels(arrays, seed, number, head) for head in range(heads)]
            for name in DENSE:
                stacks[name].append(np.stack([kernels[name] for kernels in each]))
        self._kernels = {name: tf.constant(np.stack(stack)) for name, stack in stacks.items()}
        self._arrays = {
            name: tf.constant(value)
            for name, value in arrays.items()
            if not name.endswith(("/mean", "/deviation"))
        }
        # In the order of the draws; a last set that is not whole leaves out the last heads of some passes.
        self._order = [(number - passes[0]) * heads + head for number, head in places]
        self._count = len(passes)

    def __call__(self, images: Any) -> Any:
        """Probabilities `[S, N, 37]` float32 of images `[N, 64, 64, 3]`, in the order of the draws."""
        inputs = layers.patches(images) if self._products else images
        # A rolled loop: an unrolled one takes seconds to trace, and as many passes' activations to run.
        logits = tf.map_fn(
            lambda k: self._one(inputs, {name: stack[k] for name, stack in self._kernels.items()}),
            tf.range(self._count),
            parallel_iterations=self._parallel,
            fn_output_signature=tf.float32,
        )
        ordered = tf.gather(tf.reshape(logits, (-1, *logits.shape[2:])), self._order)
        return layers.cumulative_probabilities(ordered)

    def _one(self, inputs: Any, kernels: dict[str, Any]) -> Any:
        """Logits `[H, N, 37]` of one pass and its heads."""
        x = layers.trunk(inputs, [kernels[name] for name in CONVOLUTIONS], self._arrays, "SAME")
        x = tf.nn.relu(x @ kernels["hidden"] + self._arrays["hidden/bias"])
        return x @ kernels["logits"] + self._arrays["logits/bias"]
