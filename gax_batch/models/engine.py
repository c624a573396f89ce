"""The engine: from cutouts to draws and summaries, with reproducible bits.

All work is done in micro-batches of one static shape, the last one padded. On a CPU, every operation runs on
one thread, without XLA, while the threads work on different draws. (Convolutions that divide one operation
among threads sum in another order; measured difference: 1e-6.) A GPU runs deterministic kernels compiled by
XLA. The result of a galaxy therefore does not depend on its place, its neighbors, the number of galaxies or
the number of threads.

This module imports TensorFlow: do not import it in processes that do not run inference.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from gax_batch.errors import FatalError, UsageError
from gax_batch.gz2 import N_ANSWERS, N_QUESTIONS
from gax_batch.imaging.cutout import IMAGE_SIDE
from gax_batch.models import (
    DEFAULT_DRAWS,
    DEFAULT_MODELS,
    DEFAULT_PASSES,
    Precision,
    bayesian,
    classic,
    svr,
    uncertainty,
)
from gax_batch.models.bundle import MODELS, Bundle
from gax_batch.models.nesting import DEFAULT, Nesting, allows_stages, mean_variance, stages
from gax_batch.models.precision import faster, measure_rates, rates_of_machine
from gax_batch.models.runtime import configure, tf
from gax_batch.models.uncertainty import Float, Summary
from gax_batch.system.cpus import logical_cpus

Images = npt.NDArray[np.uint8]
T = TypeVar("T")
# Exponentials of whole vectors and of a remainder differ in the last bit: no step may have a remainder.
ROWS = 16
# Rows of a GPU's micro-batch, which takes 1 GiB of its memory. An H200 processes 32,300 galaxies a second
# with 1,024 rows and 34,200 with 2,048.
GPU_ROWS = 1024
# Galaxies that one thread summarizes per step, in whole vectors of 16.
SUMMARIZED_ROWS = 256


class Engine:
    """The models of a bundle, ready for inference.

    Args:
        bundle: The bundle, see `gax_batch.models.bundle.load_bundle`.
        models: Networks to run, any of `bayesian`, `svr`, `classic`.
        draws: Number of weight draws of the Bayesian CNN. The first draws are the same for every number.
        passes: Number of passes through the convolutions, which the draws share (see
            `gax_batch.models.nesting`).
        target_error: Draw 128, 256, 512, ... up to `draws` times for each galaxy, 8 times per pass, until
            the Monte Carlo error of the Bayesian CNN's mean is at most this for every answer (see
            `nesting.mean_variance`). None for always `draws`. Only `summarize` makes more draws than the
            first 128. It keeps only the first 64, so that every galaxy has the same number.
        precision: Data type of the convolutions. `auto` is the faster one on this machine. Dense layers, the
            output head and the regressions always use float32.
        threads: Number of TensorFlow's threads, 0 for one per core. The first engine of a process decides.
        micro_batch: Galaxies per step, a multiple of 16. 0 is 16 on a CPU (its caches are small) and 1,024 on
            a GPU. Another value may change the last bits of the results.

    Raises:
        UsageError: The models are missing or unknown, `draws` is not positive, the draws or models do not
            allow a target error, or the bundle lacks data that they need.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        models: Sequence[str] = DEFAULT_MODELS,
        draws: int = DEFAULT_DRAWS,
        passes: int = DEFAULT_PASSES,
        target_error: float | None = None,
        precision: Precision = "auto",
        threads: int = 0,
        micro_batch: int = 0,
    ) -> None:
        unknown = sorted(set(models) - set(MODELS))
        if unknown or not models:
            raise UsageError(f"models {', '.join(unknown) or '(none)'}: choose from {', '.join(MODELS)}")
        if draws < 1 or passes < 1:
            raise UsageError(f"draws and passes must be at least 1, not {draws} and {passes}")
        if target_error is not None and ("bayesian" not in models or not allows_stages(draws)):
            raise UsageError(
                f"a target error needs the model bayesian, and a multiple of {DEFAULT.draws} draws and at "
                f"least {2 * DEFAULT.draws}"
            )
        if micro_batch % ROWS:
            raise UsageError(f"micro_batch must be a multiple of {ROWS}, not {micro_batch}")
        threads = threads or logical_cpus()
        gpu = configure(threads)
        parallel = 1 if gpu else threads
        self._micro_batch = micro_batch or (GPU_ROWS if gpu else ROWS)
        nesting = Nesting.of(draws, passes)
        self._target_error = target_error
        more: list[range] = []
        if target_error is not None:
            first, *more = stages(draws)
            nesting = replace(DEFAULT, draws=len(first))
        self._n_draws = nesting.draws
        if precision == "auto":
            precision = faster(rates_of_machine(partial(measure_rates, threads)))
        dtype = tf.as_dtype(precision)
        try:
            self._calibration = uncertainty.Calibration.of_bundle(bundle.manifest["calibration"], models)
            predictors = _predictors(bundle, set(models), dtype, nesting, 0, parallel, gpu)
        except KeyError as error:
            raise UsageError(f"the bundle {bundle.bundle_id} lacks {error}; use another bundle") from None
        self._svr_draws = 2 * len(bundle.arrays["svr"]["svr/half_dual"]) if "svr" in models else 0
        self._run = _compile(predictors, dtype, self._micro_batch, xla=gpu)
        refining = [
            _predictors(bundle, {"bayesian"}, dtype, replace(DEFAULT, draws=s.stop), s.start, parallel, gpu)
            for s in more
        ]
        self._more = [_compile(each, dtype, self._micro_batch, xla=gpu) for each in refining]

    def summarize(self, images: Images) -> Summary:
        """Classify cutouts.

        Args:
            images: Cutouts, uint8 `[N, 64, 64, 3]`. N may be 0.

        Returns:
            N rows, in the same order.

        Raises:
            FatalError: A model returned NaN or infinity.
        """
        if not len(images):
            draws = self._n_draws if self._target_error is None else DEFAULT.draws
            return _no_galaxies(draws if "bayesian" in self._calibration.models else 0)
        if self._target_error is not None:
            return self._refined(images, self._target_error)
        # A GPU computes draws faster than one core summarizes them.
        with ThreadPoolExecutor(logical_cpus()) as pool:
            parts = pool.map(partial(uncertainty.summarize, self._calibration), self._pieces(images))
            return Summary.concatenate(list(parts)).head(len(images))

    def _pieces(self, images: Images) -> Iterator[dict[str, Float]]:
        """Yield all outputs for a few galaxies at a time, including the padding behind the last galaxy."""
        for outputs, count in self._outputs(images, self._run):
            for start in range(0, count, SUMMARIZED_ROWS):
                yield uncertainty.rows_of(outputs, slice(start, start + SUMMARIZED_ROWS))

    def outputs(self, images: Images) -> dict[str, Float]:
        """Return all outputs of the models, float32, as `uncertainty.summarize` expects them.

        Args:
            images: Cutouts, uint8 `[N, 64, 64, 3]`.

        Returns:
            For each model that runs, cumulative fractions: `bayesian` `[S, N, 37]` (every draw), `classic`
            and `svr` `[N, 37]`. With `svr` also `svr_draws` `[16, N, 37]` (see `uncertainty.svr_fractions`)
            and `closeness` `[N]`, the largest kernel value to any support vector that is not the galaxy
            itself.

        Raises:
            FatalError: A model returned NaN or infinity.
        """
        shapes: dict[str, tuple[int, ...]] = {name: (0, N_ANSWERS) for name in self._calibration.models}
        if "bayesian" in shapes:
            shapes["bayesian"] = (self._n_draws, 0, N_ANSWERS)
        if "svr" in shapes:
            shapes |= {"closeness": (0,), "svr_draws": (self._svr_draws, 0, N_ANSWERS)}
        parts = {name: [np.empty(shape, np.float32)] for name, shape in shapes.items()}
        for outputs, count in self._outputs(images, self._run):
            for name, values in uncertainty.rows_of(outputs, np.arange(count)).items():
                parts[name].append(values)
        return {name: np.concatenate(kept, axis=max(kept[0].ndim - 2, 0)) for name, kept in parts.items()}

    def draws(self, images: Images) -> Float:
        """Return every draw's cumulative fractions, float32 `[S, N, 37]`, each consistent with the tree.

        Raises:
            UsageError: The engine runs without the Bayesian CNN.
            FatalError: A model returned NaN or infinity.
        """
        if "bayesian" not in self._calibration.models:
            raise UsageError("draws come from the Bayesian CNN; add bayesian to the models")
        return self.outputs(images)["bayesian"]

    def predictions(self, images: Images) -> dict[str, Float]:
        """Return each model's cumulative fractions, float32 `[N, 37]`. Draws are averaged.

        Raises:
            FatalError: A model returned NaN or infinity.
        """
        outputs = self.outputs(images)
        return {
            name: outputs[name].mean(axis=0) if name == "bayesian" else outputs[name]
            for name in self._calibration.models
        }

    def _refined(self, images: Images, target: float) -> Summary:
        """Return the summary with more draws for the galaxies that need them.

        Whether a galaxy needs more depends only on its own draws, which do not depend on the other galaxies
        or on their number.
        """
        outputs, left = self.outputs(images), np.arange(len(images))
        parts: list[Summary] = []
        rows: list[npt.NDArray[np.int64]] = []
        for more in [*self._more, None]:
            draws = outputs["bayesian"]
            blocks = replace(DEFAULT, draws=len(draws)).blocks()
            enough = np.sqrt(mean_variance(draws, blocks).max(axis=-1)) <= target
            if more is None:
                enough[:] = True
            rows.append(left[enough])
            parts += self._summaries(uncertainty.rows_of(outputs, np.flatnonzero(enough)))
            left, outputs = left[~enough], uncertainty.rows_of(outputs, np.flatnonzero(~enough))
            if not len(left):
                break
            drawn = [found["bayesian"][:, :count] for found, count in self._outputs(images[left], more)]
            outputs["bayesian"] = np.concatenate([outputs["bayesian"], np.concatenate(drawn, axis=1)])
        return Summary.concatenate(parts).take(np.argsort(np.concatenate(rows)))

    def _summaries(self, outputs: dict[str, Float]) -> Iterator[Summary]:
        """Yield summaries of galaxies with the same number of draws, of which only the first are kept."""
        count = outputs["bayesian"].shape[1]
        for start in range(0, count, self._micro_batch):
            # Pad with the last galaxy: see ROWS.
            rows = np.minimum(np.arange(start, start + self._micro_batch), count - 1)
            summary = uncertainty.summarize(self._calibration, uncertainty.rows_of(outputs, rows))
            summary = replace(summary, draws=summary.draws[:, : DEFAULT.draws])
            yield summary.head(min(count - start, self._micro_batch))

    def _outputs(self, images: Images, run: Any) -> Iterator[tuple[dict[str, Float], int]]:
        """Yield each micro-batch's outputs, padding included, and its number of galaxies."""
        if images.dtype != np.uint8 or images.shape[1:] != (IMAGE_SIDE, IMAGE_SIDE, 3):
            raise FatalError(f"cutouts must be uint8 [N, 64, 64, 3], not {images.dtype} {list(images.shape)}")
        try:
            for tensors, count in _one_ahead(self._started(images, run)):
                yield _checked({name: tensor.numpy() for name, tensor in tensors.items()}), count
        except tf.errors.OpError as error:
            raise FatalError(f"TensorFlow failed: {error.message}") from error

    def _started(self, images: Images, run: Any) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield each micro-batch's results, perhaps still being computed, and its number of galaxies."""
        for start in range(0, len(images), self._micro_batch):
            batch = images[start : start + self._micro_batch]
            padding = np.zeros((self._micro_batch - len(batch), *images.shape[1:]), np.uint8)
            yield run(np.concatenate([batch, padding])), len(batch)


def _one_ahead(results: Iterator[T]) -> Iterator[T]:
    """Yield each result after the next one was started, so that a GPU works while results are used."""
    waiting: deque[T] = deque()
    for result in results:
        waiting.append(result)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


def _checked(outputs: dict[str, Float]) -> dict[str, Float]:
    """Return the outputs as fractions.

    Raises:
        FatalError: They are not finite.
    """
    for name, values in outputs.items():
        if not np.isfinite(values).all():
            raise FatalError(f"{name} returned NaN or infinity; the bundle or the device is faulty")
    if "svr" in outputs:
        outputs["svr"], outputs["svr_draws"] = uncertainty.svr_fractions(outputs["svr"])
    return outputs


def _predictors(
    bundle: Bundle, models: set[str], dtype: Any, nesting: Nesting, first: int, parallel: int, gpu: bool
) -> dict[str, Any]:
    predictors: dict[str, Any] = {}
    if "bayesian" in models:
        predictors["bayesian"] = bayesian.Predictor(
            bundle.arrays["bayesian"],
            dtype,
            seed=int(bundle.manifest["seed"]),
            nesting=nesting,
            first=first,
            parallel=parallel,
            products=gpu,
        )
    if "classic" in models:
        predictors["classic"] = classic.Predictor(bundle.arrays["classic"], dtype, parallel=parallel)
    if "svr" in models:
        predictors["svr"] = svr.Predictor(bundle.arrays["svr"], dtype, parallel=parallel)
    return predictors


def _compile(predictors: dict[str, Any], dtype: Any, micro_batch: int, *, xla: bool) -> Any:
    shape = (micro_batch, IMAGE_SIDE, IMAGE_SIDE, 3)

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8)], jit_compile=xla)  # type: ignore[untyped-decorator]
    def run(images: Any) -> dict[str, Any]:
        x = tf.cast(tf.cast(images, tf.float32) / 255.0, dtype)
        outputs = {name: predict(x) for name, predict in predictors.items()}
        if "svr" in outputs:
            outputs["svr"], outputs["closeness"] = outputs["svr"]
        return outputs

    return run


def _no_galaxies(draws: int) -> Summary:
    answers, questions = np.empty((0, N_ANSWERS), np.float32), np.empty((0, N_QUESTIONS), np.float32)
    return Summary(
        prob=answers,
        std=answers,
        lo=answers,
        hi=answers,
        svr=answers,
        entropy=questions,
        mutual_info=questions,
        ood_score=np.empty(0, np.float32),
        gz2_class=[],
        gz2_class_margin=np.empty(0, np.float32),
        out_of_distribution=np.empty(0, bool),
        draws=np.empty((0, draws, N_ANSWERS), np.float32),
    )
