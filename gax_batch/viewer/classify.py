"""Classify a few images in this process, without Ray and without a catalog."""

import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from gax_batch import gz2, storage
from gax_batch.errors import UsageError
from gax_batch.imaging.decoding import Decoder
from gax_batch.models import Precision
from gax_batch.models.bundle import load_catalog_bundle
from gax_batch.models.domain import Reference, warning_lines
from gax_batch.models.uncertainty import Summary
from gax_batch.rejects import RejectError
from gax_batch.system.extras import require_extra
from gax_batch.system.stderr import quiet_native_stderr
from gax_batch.viewer.tree import RARE, figure_size, lay_out, plot_tree, walk

logger = logging.getLogger(__name__)

PLOT_SUFFIXES = (".png", ".pdf", ".svg")

_BAR = 40
_WIDTH = 110


def classify_images(
    uris: Sequence[str],
    *,
    bundle: str | None,
    models: tuple[str, ...],
    draws: int,
    passes: int,
    precision: Precision,
    decoder: Decoder,
) -> list[dict[str, Any]]:
    """Classify images. Log a warning if they, as a whole, differ from the reference of the bundle.

    Args:
        uris: Paths or URIs of the images.
        bundle: Folder or URI of the bundle; the shipped one if None.
        models: Names of the networks to run.
        draws: Number of weight draws of the Bayesian CNN.
        passes: Number of passes through its convolutions that carry the draws.
        precision: Precision of the convolutions.
        decoder: Decoder that turns the images into cutouts.

    Returns:
        For each image, in order: `image`, and either `gz2_class`, `gz2_class_margin`, `ood_score`,
        `answers` (37 times `prob`, `std`, `lo`, `hi`, cumulative fractions) and `questions` (11 times
        `entropy` and `mutual_info`, nats), or `rejected` with reason and detail.

    Raises:
        UsageError: An image does not exist, or the bundle cannot be used.
    """
    loaded = load_catalog_bundle(bundle)
    cutouts: list[np.ndarray] = []
    outcomes: list[dict[str, Any] | None] = []
    for uri in uris:
        try:
            cutout, _ = decoder.decode(_read(uri))
        except RejectError as error:
            outcomes.append({"rejected": str(error.reject.reason), "detail": error.reject.detail})
        else:
            cutouts.append(cutout)
            outcomes.append(None)
    galaxies: Iterator[dict[str, Any]] = iter(())
    if cutouts:
        with quiet_native_stderr():
            from gax_batch.models.engine import Engine

            engine = Engine(loaded, models=models, draws=draws, passes=passes, precision=precision)
            summary = engine.summarize(np.stack(cutouts))
        if (reference := Reference.of_bundle(loaded.manifest)) is not None:
            verdict = reference.judge(reference.count(np.stack(cutouts)))
            for line in warning_lines(verdict.as_dict()):
                logger.info(line)
        galaxies = iter(_galaxies(summary))
    return [
        {"image": uri, **(next(galaxies) if o is None else o)} for uri, o in zip(uris, outcomes, strict=True)
    ]


def render_json(rows: list[dict[str, Any]]) -> str:
    """Return the rows as one JSON array."""
    return json.dumps(rows, indent=2)


def render_trees(rows: list[dict[str, Any]]) -> str:
    """Return the tree of each image as text: every answer with a bar, its fraction and its 90 % interval.

    The most likely path is bold. Questions that fewer than `RARE` of the volunteers are asked are dim.
    """
    console = Console(width=max(_WIDTH, Console().width))
    with console.capture() as capture:
        for row in rows:
            image = row["image"].rsplit("/", 1)[-1]
            if "rejected" in row:
                console.print(
                    f"{image}: rejected: {row['rejected']} ({row['detail']})", markup=False, soft_wrap=True
                )
                continue
            head = (
                f"{image}: {row['gz2_class']}, margin {row['gz2_class_margin']:.2f}, "
                f"out-of-distribution score {_score(row['ood_score'])}"
            )
            console.print(head, style="bold", markup=False, highlight=False)
            console.print(_tree(row["answers"]))
        console.print(
            "Fractions of all volunteers who would give the answer; ▓ is the lower, ░ the upper part of the "
            "calibrated 90 % interval.",
            highlight=False,
            soft_wrap=True,
        )
    return capture.get().rstrip()


def _tree(answers: dict[str, dict[str, Any]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    likely = gz2.most_likely(np.array([answers[name]["prob"] for name in gz2.ANSWERS]))
    for prefix, question, column in walk():
        if column is None:
            grid.add_row(f"{prefix}{gz2.in_words(question.name)}?", style=_style(answers, question))
            continue
        answer = answers[gz2.ANSWERS[column]]
        style = "bold" if likely[column] else _style(answers, question)
        name = gz2.in_words(question.answers[column - question.start])
        grid.add_row(f"{prefix}{name}", _bar(answer), _cell(answer), style=style)
    return grid


def _style(answers: dict[str, dict[str, Any]], question: gz2.Question) -> str:
    asked = 1.0 if question.parent is None else answers[gz2.ANSWERS[question.parent]]["prob"]
    return "dim" if asked < RARE else ""


def _bar(answer: dict[str, Any]) -> str:
    """Return a bar that is full up to the interval, then shaded, and darker up to the fraction."""
    prob, lo, hi = (answer["prob"] if (v := answer[name]) is None else v for name in ("prob", "lo", "hi"))
    low, middle, high = (round(_BAR * value) for value in (lo, prob, hi))
    drawn: str = "█" * low + "▓" * (middle - low) + "░" * (high - middle)
    return drawn.ljust(_BAR, "·")


def check_plot(path: str) -> None:
    """Check that a picture can be drawn, before the images are classified.

    Raises:
        UsageError: The file's name does not end in one of `PLOT_SUFFIXES`, or Matplotlib is not installed.
    """
    if not path.lower().endswith(PLOT_SUFFIXES):
        raise UsageError(f"--plot {path} is not a supported picture; name a {', '.join(PLOT_SUFFIXES)} file")
    require_extra("viewer", "gax classify --plot", "matplotlib")


def save_plot(rows: list[dict[str, Any]], decoder: Decoder, path: str) -> None:
    """Draw each image and its tree as a picture, in the format of the file's suffix.

    Args:
        rows: Result of `classify_images`; rejected images are omitted.
        decoder: Decoder that turns the images into cutouts.
        path: A local file whose name ends in one of `PLOT_SUFFIXES`.

    Raises:
        UsageError: Nothing is left to draw, or the file cannot be written.
    """
    from matplotlib.figure import Figure

    drawn = [row for row in rows if "rejected" not in row]
    if not drawn:
        raise UsageError(f"no image could be read, so nothing can be drawn in {path}")
    width, height = figure_size(lay_out(_as_galaxy(drawn[0])))
    figure = Figure(figsize=(width, height * len(drawn)))
    for place, row in enumerate(drawn):
        bottom = 1 - (place + 1) / len(drawn)
        axes = plot_tree(_as_galaxy(row), figure.add_axes((0, bottom, 1, 0.94 / len(drawn))))
        # The first column of the tree has space above its blocks.
        inset = axes.inset_axes((0.006, 0.77, 0.085, 0.22))
        inset.imshow(decoder.decode(_read(row["image"]))[0])
        inset.set_axis_off()
    try:
        figure.savefig(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error}; choose another --plot") from error


def _as_galaxy(row: dict[str, Any]) -> dict[str, Any]:
    """Return the columns that a catalog would have for the image."""
    numbers = {f"{name}_{kind}": v for name, each in row["answers"].items() for kind, v in each.items()}
    return {"galaxy_id": row["image"].rsplit("/", 1)[-1], "gz2_class": row["gz2_class"], **numbers}


def _read(uri: str) -> bytes:
    try:
        return storage.read_bytes(storage.normalize_uri(uri))
    except FileNotFoundError:
        raise UsageError(f"no image at {uri}: check the path") from None
    except PermissionError:
        raise UsageError(f"no permission to read {uri}: check its mode or your credentials") from None
    except OSError as error:
        raise UsageError(f"{uri} cannot be read ({error}): name an image file") from None


def _galaxies(summary: Summary) -> list[dict[str, Any]]:
    def number(value: float) -> float | None:
        return None if np.isnan(value) else round(float(value), 6)

    return [
        {
            "gz2_class": summary.gz2_class[i],
            "gz2_class_margin": number(summary.gz2_class_margin[i]),
            "ood_score": number(summary.ood_score[i]),
            "answers": {
                answer: {
                    name: number(getattr(summary, name)[i, column])
                    for name in ("prob", "std", "lo", "hi", "svr")
                }
                for column, answer in enumerate(gz2.ANSWERS)
            },
            "questions": {
                question: {
                    name: number(getattr(summary, name)[i, column]) for name in ("entropy", "mutual_info")
                }
                for column, question in enumerate(gz2.QUESTION_NAMES)
            },
        }
        for i in range(len(summary.gz2_class))
    ]


def _cell(answer: dict[str, float | None]) -> str:
    if answer["lo"] is None or answer["hi"] is None:
        return f"{answer['prob']:.2f}"
    return f"{answer['prob']:.2f} [{answer['lo']:.2f}, {answer['hi']:.2f}]"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
