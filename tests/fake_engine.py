"""An engine without TensorFlow, whose draws are known; Ray's workers import it by name."""

import os
import time
from pathlib import Path

import numpy as np

from gax_batch import gz2
from gax_batch.errors import FatalError
from gax_batch.models.uncertainty import Summary

N_DRAWS = 4
# Draw k leans by LEANS[k] from the galaxy's own fractions to those of ANCHOR, the same for every galaxy.
LEANS = np.array([0.0, 0.1, 0.2, 0.4], np.float32)
ANCHOR = gz2.cumulative(gz2.conditional(np.arange(1, gz2.N_ANSWERS + 1, dtype=np.float32)))


def known_draws(prob: np.ndarray) -> np.ndarray:
    """Draws `[N, 4, 37]` of known coherence: as of networks that all err in the same direction."""
    leans = LEANS[:, None]
    return ((1 - leans) * prob[:, None] + leans * ANCHOR).astype(np.float32)


class FakeEngine:
    """Fractions that are a function of the pixels alone; each batch leaves a line in `log`.

    The spread is that of the draws, as in every engine; the fractions are those of the first draw.
    """

    def __init__(self, log: str | None = None, seconds: float = 0.0, fail_on: int | None = None) -> None:
        self._log, self._seconds, self._fail_on = log, seconds, fail_on

    def summarize(self, images: np.ndarray) -> Summary:
        if self._log:
            with Path(self._log).open("a") as file:
                file.write(f"{os.getpid()} {len(images)}\n")
        if self._seconds:
            time.sleep(self._seconds)
        if self._fail_on is not None and len(images) == self._fail_on:
            raise FatalError("the model returned NaN")
        flat = images.reshape(len(images), 64 * 64 * 3)[:, : gz2.N_ANSWERS].astype(np.float32) + 1
        prob = gz2.cumulative(gz2.conditional(flat)).astype(np.float32)
        draws = known_draws(prob)
        entropy = np.repeat(prob[:, :1], gz2.N_QUESTIONS, axis=1)
        return Summary(
            prob=prob,
            std=draws.std(axis=1),
            lo=prob * np.float32(0.5),
            hi=np.minimum(prob * np.float32(1.5), 1),
            svr=prob,
            entropy=entropy,
            mutual_info=entropy * np.float32(0.1),
            ood_score=prob[:, 0],
            gz2_class=gz2.gz2_class(prob),
            gz2_class_margin=gz2.gz2_class_margin(prob),
            out_of_distribution=prob[:, 0] > 0.9,
            draws=draws,
        )


def fake_engine(
    threads: int, *, log: str | None = None, seconds: float = 0.0, fail_on: int | None = None, **_: object
) -> FakeEngine:
    """An engine factory with the signature of `gax_batch.runner.run.load_engine`."""
    return FakeEngine(log, seconds, fail_on)
