"""`gax evaluate`: a bundle or a catalog against a table of labels, as JSON and one page of plots."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch import storage, tree
from gax_batch.catalog.snapshots import Catalog
from gax_batch.decoding import Decoder
from gax_batch.errors import UsageError
from gax_batch.evaluation import anomalies, metrics
from gax_batch.evaluation.page import page
from gax_batch.labels import EXAMPLES, Labels, read_labels
from gax_batch.listing import list_objects
from gax_batch.models.bundle import load_bundle
from gax_batch.progress import Say
from gax_batch.quiet import quiet_native_stderr
from gax_batch.rejects import RejectError
from gax_batch.sources.images import stem
from gax_batch.uncertainty import Summary, interval

Float = npt.NDArray[np.float32]
SEED = 7


def evaluate_catalog(uri: str, table: str, output: str, say: Say) -> dict[str, Any]:
    """Judge the galaxies of a catalog that a table labels.

    Args:
        uri: the catalog.
        table: labels, see `gax_batch.labels.read_labels`.
        output: folder for `evaluation.json` and `evaluation.html`.
        say: called with each line.

    Raises:
        UsageError: bad labels, or none of them is in the catalog.
    """
    labels = read_labels(table)
    kinds = ("prob", "std", "lo", "hi")
    columns = [f"{answer}_{kind}" for kind in kinds for answer in tree.ANSWERS]
    rows = Catalog(uri).galaxies(columns=["galaxy_id", "ood_score", *columns])
    place = {name: row for row, name in enumerate(rows["galaxy_id"].to_pylist())}
    labels = _labelled(labels, set(place), "galaxies of the catalog", say)
    order = np.array([place[name] for name in labels.ids], np.intp)
    values = {
        kind: np.stack(
            [rows[f"{a}_{kind}"].to_numpy(zero_copy_only=False)[order] for a in tree.ANSWERS], axis=1
        )
        for kind in kinds
    }
    found = {"of": uri, **_judge(labels, values, {"0.9": (values["lo"], values["hi"])})}
    return _write(found, output, say)


def evaluate_bundle(
    bundle: str | None, table: str, images: str, output: str, draws: int, say: Say
) -> dict[str, Any]:
    """Judge a bundle on labelled images that it was not trained on.

    Args:
        bundle: folder or URI; the shipped one when None.
        table: labels, see `gax_batch.labels.read_labels`.
        images: folder, prefix or glob; an image's name is its galaxy's id.
        output: folder for `evaluation.json` and `evaluation.html`.
        draws: weight draws.
        say: called with each line.

    Raises:
        UsageError: bad labels, or none of them has an image.
    """
    labels = read_labels(table)
    found = {stem(info.uri): info.uri for info in list_objects(images)}
    labels = _labelled(labels, set(found), "images", say)
    loaded = load_bundle(bundle)
    cutouts, readable = _decode([found[name] for name in labels.ids], say)
    labels = labels.take(readable)
    with quiet_native_stderr():
        from gax_batch.inference import Engine

        engine = Engine(loaded, draws=draws)
        say(f"classifying {len(labels):,} galaxies")
        summary = engine.summarize(cutouts)
        turned = engine.summarize(anomalies.turned(cutouts))
        strange = {
            kind: engine.summarize(pictures).ood_score
            for kind, pictures in anomalies.anomalies(cutouts, SEED).items()
        }
    values = {"prob": summary.prob, "std": summary.std, "lo": summary.lo, "hi": summary.hi}
    result = {"of": loaded.bundle_id, **_judge(labels, values, _intervals(loaded.manifest, summary))}
    result["rotation_mean_change"] = round(float(np.mean(np.abs(summary.prob - turned.prob))), 5)
    result["out_of_distribution"] = {
        f"auc_{kind}": round(anomalies.auc(summary.ood_score, scores), 4) for kind, scores in strange.items()
    } | {"auc": round(anomalies.auc(summary.ood_score, np.concatenate(list(strange.values()))), 4)}
    return _write(result, output, say)


def _labelled(labels: Labels, known: set[str], what: str, say: Say) -> Labels:
    there = np.array([name in known for name in labels.ids])
    used = there & (labels.voted | (labels.classes >= 0))
    if not used.any():
        raise UsageError(f"none of the {len(labels):,} labelled galaxies is among the {what}")
    say(f"{int(used.sum()):,} labelled galaxies")
    for kind, count, names in (
        ("labels without", (~there).sum(), [n for n, t in zip(labels.ids, there, strict=True) if not t]),
        ("without a label among the", len(known) - there.sum(), sorted(known - set(labels.ids))),
    ):
        if count:
            say(f"  left out: {int(count):,} {kind} {what} ({', '.join(names[:EXAMPLES])}, ...)")
    return labels.take(np.flatnonzero(used))


def _decode(uris: list[str], say: Say) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp]]:
    cutouts, rows = [], []
    for row, uri in enumerate(uris):
        try:
            cutouts.append(Decoder().decode(storage.read_bytes(uri))[0])
            rows.append(row)
        except RejectError as error:
            say(f"  left out: {uri}: {error}")
    if not cutouts:
        raise UsageError("none of the labelled images can be read")
    return np.stack(cutouts), np.array(rows, np.intp)


def _intervals(manifest: dict[str, Any], summary: Summary) -> dict[str, tuple[Float, Float]]:
    values = manifest["calibration"]
    levels = values["combinations"]["bayesian+svr"].get("levels", {})
    return {
        level: interval(
            summary.prob,
            summary.std,
            np.array(quantiles, np.float32),
            n_votes=values["n_votes"],
            floor=values["floor"],
        )
        for level, quantiles in levels.items()
    } or {"0.9": (summary.lo, summary.hi)}


def _judge(
    labels: Labels, values: dict[str, Float], intervals: dict[str, tuple[Float, Float]]
) -> dict[str, Any]:
    voted, known = np.flatnonzero(labels.voted), np.flatnonzero(labels.classes >= 0)
    result: dict[str, Any] = {"galaxies": {"voted": len(voted), "classes": len(known)}}
    if len(voted):
        chosen, prob = labels.take(voted), values["prob"][voted]
        error = np.square(prob - chosen.cumulative, dtype=np.float64).mean(axis=1)
        width = (values["hi"] - values["lo"])[voted].mean(axis=1)
        result |= {
            "points": metrics.point_metrics(prob, chosen),
            "vote_noise_rmse": round(metrics.vote_noise(chosen), 4),
            "intervals": {
                level: metrics.coverage(lo[voted], hi[voted], chosen) for level, (lo, hi) in intervals.items()
            },
            "risk_coverage": {
                "interval width": metrics.risk_coverage(error, width),
                "epistemic spread": metrics.risk_coverage(error, values["std"][voted].mean(axis=1)),
            },
        }
    if len(known):
        result["clear_classes"] = metrics.clear_metrics(values["prob"][known], labels.classes[known])
    return result


def _write(result: dict[str, Any], output: str, say: Say) -> dict[str, Any]:
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (folder / "evaluation.html").write_text(page(result), encoding="utf-8")
    if "points" in result:
        points, noise = result["points"], result["vote_noise_rmse"]
        say(
            f"RMSE {points['rmse']:.4f} (vote noise {noise:.4f}), votes' likelihood {points['votes_nll']:.2f}"
        )
        for level, found in result["intervals"].items():
            say(f"{float(level):.0%} intervals hold {found['coverage']:.1%}, mean width {found['width']:.3f}")
    if "clear_classes" in result:
        say(f"five clear classes: {result['clear_classes']['accuracy']:.1%} right")
    if "out_of_distribution" in result:
        say(f"out-of-distribution AUC {result['out_of_distribution']['auc']:.3f}")
        say(f"a turn by 90 degrees moves the blend by {result['rotation_mean_change']:.4f}")
    say(f"written: {folder / 'evaluation.json'} and evaluation.html")
    return result
