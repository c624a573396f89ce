"""A few images classified in this process: no Ray, no catalog, nothing written."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from gax_batch import storage, tree
from gax_batch.decoding import Decoder
from gax_batch.errors import UsageError
from gax_batch.models import Precision
from gax_batch.models.bundle import load_bundle
from gax_batch.quiet import quiet_native_stderr
from gax_batch.rejects import RejectError
from gax_batch.uncertainty import Summary

# The answers that a person looks for first, with short names for a table's head.
HEADLINES = {
    "t01_smooth_or_features_a01_smooth": "smooth",
    "t01_smooth_or_features_a02_features_or_disk": "features",
    "t02_edgeon_a04_yes": "edge-on",
    "t03_bar_a06_bar": "bar",
    "t04_spiral_a08_spiral": "spiral",
    "t06_odd_a14_yes": "odd",
}


def classify_images(
    uris: Sequence[str],
    *,
    bundle: str | None,
    models: tuple[str, ...],
    draws: int,
    precision: Precision,
    decoder: Decoder,
) -> list[dict[str, Any]]:
    """Classify images.

    Returns:
        For each image, in order: `image`, and either `gz2_class`, `ood_score`, `answers` (37 times
        `prob`, `std`, `lo`, `hi`, cumulative fractions) and `questions` (11 times `entropy` and
        `mutual_info`, nats), or `rejected` with reason and detail.

    Raises:
        UsageError: an image that does not exist, or a bundle that cannot be used.
    """
    loaded = load_bundle(bundle)
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
            from gax_batch.inference import Engine

            engine = Engine(loaded, models=models, draws=draws, precision=precision)
            summary = engine.summarize(np.stack(cutouts))
        galaxies = iter(_galaxies(summary))
    return [
        {"image": uri, **(next(galaxies) if o is None else o)} for uri, o in zip(uris, outcomes, strict=True)
    ]


def render_json(rows: list[dict[str, Any]]) -> str:
    """The rows as one JSON array."""
    return json.dumps(rows, indent=2)


def render_table(rows: list[dict[str, Any]]) -> str:
    """The rows as a table for a terminal: the first answers of the tree with their 90 % intervals."""
    table = Table()
    for head in ("image", "class", *HEADLINES.values(), "ood"):
        table.add_column(head, overflow="fold")
    for row in rows:
        image = row["image"].rsplit("/", 1)[-1]
        if "rejected" in row:
            table.add_row(image, f"rejected: {row['rejected']}", row["detail"])
            continue
        cells = [_cell(row["answers"][answer]) for answer in HEADLINES]
        table.add_row(image, row["gz2_class"], *cells, _score(row["ood_score"]))
    console = Console(width=max(140, Console().width))
    with console.capture() as capture:
        console.print(table)
        console.print("Fractions of all volunteers who would say so, with calibrated 90 % intervals.")
    return capture.get().rstrip()


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
            "ood_score": number(summary.ood_score[i]),
            "answers": {
                answer: {
                    name: number(getattr(summary, name)[i, column])
                    for name in ("prob", "std", "lo", "hi", "svr")
                }
                for column, answer in enumerate(tree.ANSWERS)
            },
            "questions": {
                question: {
                    name: number(getattr(summary, name)[i, column]) for name in ("entropy", "mutual_info")
                }
                for column, question in enumerate(tree.QUESTION_NAMES)
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
