"""`gax evaluate`: evaluate a bundle or a catalog against a table of labels, as JSON and a page of plots."""

import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch import gz2, storage
from gax_batch.analysis.evaluation import anomalies, distributions, looks, metrics, training_set
from gax_batch.analysis.evaluation.conditional import conditional_metrics
from gax_batch.analysis.evaluation.image_files import holds_zips, list_images, read_images
from gax_batch.analysis.evaluation.page import page
from gax_batch.analysis.labels import EXAMPLES, NO_CLASS, WEIGHTED, Labels, read_labels
from gax_batch.catalog.snapshots import Catalog
from gax_batch.errors import UsageError
from gax_batch.imaging.decoding import Decoder
from gax_batch.models.bundle import Bundle, load_bundle
from gax_batch.models.predictive import Predictive
from gax_batch.models.uncertainty import Summary
from gax_batch.rejects import RejectError
from gax_batch.sources.images import stem
from gax_batch.storage.listing import list_objects
from gax_batch.system.stderr import quiet_native_stderr

logger = logging.getLogger(__name__)

Float = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Manifest = Mapping[str, Any]
SEED = 7


def evaluate_catalog(
    uri: str,
    table: str,
    output: str,
    *,
    bundle: str | None = None,
    definition: str | None = None,
    allow_other_definition: bool = False,
) -> dict[str, Any]:
    """Evaluate a catalog on labeled galaxies that were not used to train its bundle.

    Args:
        uri: URI of the catalog.
        table: Labels, see `gax_batch.analysis.labels.read_labels`.
        output: Folder for `evaluation.json` and `evaluation.html`.

        bundle: Folder or URI of the catalog's bundle, which has the definition and the training galaxies;
            None for the shipped one.
        definition: Definition of the catalog's fractions, if its bundle is not available.
        allow_other_definition: Whether labels of another definition are also compared.

    Raises:
        UsageError: The labels are faulty or of another definition, the catalog's definition is unknown, or
            no galaxy remains for the evaluation.
    """
    kinds = ("prob", "std", "lo", "hi")
    columns = [f"{answer}_{kind}" for kind in kinds for answer in gz2.ANSWERS]
    rows = Catalog(uri).galaxies(columns=["galaxy_id", "bundle_id", *columns])
    manifest = catalog_manifest(set(rows["bundle_id"].to_pylist()), bundle, definition)
    labels = read_labels(table, definition_of(manifest))
    facts = _compare_definitions(labels, manifest, allow_other_definition)
    place = {name: row for row, name in enumerate(rows["galaxy_id"].to_pylist())}
    labels = _labeled(labels, set(place), "galaxies of the catalog")
    by_id = training_set.trained_by_id(manifest, labels)
    facts |= _training_facts(manifest, by_id, np.zeros_like(by_id))
    labels = labels.take(np.flatnonzero(~by_id))
    order = np.array([place[name] for name in labels.ids], np.intp)
    values = {
        kind: np.stack(
            [rows[f"{a}_{kind}"].to_numpy(zero_copy_only=False)[order] for a in gz2.ANSWERS], axis=1
        )
        for kind in kinds
    }
    found = {"of": uri, **facts, **judge(labels, values, {"0.9": (values["lo"], values["hi"])})}
    return _write(found, output)


def evaluate_bundle(
    bundle: str | None,
    table: str,
    images: str,
    output: str,
    draws: int,
    *,
    allow_other_definition: bool = False,
) -> dict[str, Any]:
    """Evaluate a bundle on labeled images that were not used to train it.

    Args:
        bundle: Folder or URI of the bundle; None for the shipped one.
        table: Labels, see `gax_batch.analysis.labels.read_labels`.
        images: Folder, prefix or glob, or a local folder of zips. The name of an image is its galaxy's id.
        output: Folder for `evaluation.json` and `evaluation.html`.
        draws: Number of weight draws.
        allow_other_definition: Whether labels of another definition are also compared.

    Raises:
        UsageError: The labels are faulty or of another definition, or no galaxy with an image remains for the
            evaluation.
    """
    loaded = load_bundle(bundle)
    labels = read_labels(table, definition_of(loaded.manifest))
    facts = _compare_definitions(labels, loaded.manifest, allow_other_definition)
    found, read = _find_images(images)
    labels = _labeled(labels, set(found), "images")
    cutouts, readable = _decode(read([found[name] for name in labels.ids]))
    labels = labels.take(readable)
    by_id = training_set.trained_by_id(loaded.manifest, labels)
    by_pixels = training_set.trained_by_pixels(loaded.manifest, cutouts)
    facts |= _training_facts(loaded.manifest, by_id, by_pixels)
    new = np.flatnonzero(~(by_id | by_pixels))
    labels, cutouts = labels.take(new), cutouts[new]
    summary, robustness = _classify(loaded, cutouts, draws)
    values = {"prob": summary.prob, "std": summary.std, "lo": summary.lo, "hi": summary.hi}
    judged = judge(labels, values, _intervals(loaded.manifest, summary), looks.measure(cutouts))
    judged |= _judge_conditional(loaded.manifest, summary, labels)
    return _write({"of": loaded.bundle_id, **facts, **judged, **robustness}, output)


def _classify(bundle: Bundle, cutouts: npt.NDArray[np.uint8], draws: int) -> tuple[Summary, dict[str, Any]]:
    """Return the predictions, and the results on rotated images and on anomalies."""
    with quiet_native_stderr():
        from gax_batch.models.engine import Engine

        engine = Engine(bundle, draws=draws)
        logger.info(f"classifying {len(cutouts):,} galaxies")
        summary = engine.summarize(cutouts)
        turned = engine.summarize(anomalies.turned(cutouts))
        strange = {
            kind: engine.summarize(pictures).ood_score
            for kind, pictures in anomalies.anomalies(cutouts, SEED).items()
        }
    scores = strange | {"": np.concatenate(list(strange.values()))}
    areas = {
        "_".join(filter(None, ("auc", kind))): round(anomalies.auc(summary.ood_score, values), 4)
        for kind, values in scores.items()
    }
    change = round(float(np.mean(np.abs(summary.prob - turned.prob))), 5)
    return summary, {"rotation_mean_change": change, "out_of_distribution": areas}


def definition_of(manifest: Manifest) -> str:
    """Return the definition, of `gax_batch.analysis.labels.DEFINITIONS`, of a bundle's fractions."""
    # Bundles that do not state it were trained on Hart et al. 2016's weighted votes.
    return str(manifest.get("definition", WEIGHTED))


def catalog_manifest(bundle_ids: set[str], bundle: str | None, definition: str | None) -> Manifest:
    """Return the manifest of the bundle that made a catalog.

    Args:
        bundle_ids: Bundle ids of the catalog's rows.
        bundle: Folder or URI of a bundle; None for the shipped one.
        definition: Definition that the manifest would have, for a catalog of another bundle.

    Raises:
        UsageError: Another bundle made the catalog, and no definition is given.
    """
    loaded = load_bundle(bundle)
    if bundle_ids == {loaded.bundle_id}:
        return loaded.manifest
    if definition is None:
        names = ", ".join(sorted(bundle_ids)[:EXAMPLES])
        raise UsageError(
            f"the catalog was made by {names}, not by {loaded.bundle_id} alone, so the definition of "
            "its fractions is unknown; name its bundle with --bundle, or set --definition"
        )
    return {"definition": definition}


def _compare_definitions(labels: Labels, manifest: Manifest, allowed: bool) -> dict[str, Any]:
    predicted = definition_of(manifest)
    if labels.definition != predicted:
        text = f"the labels are {labels.definition} fractions and the predictions {predicted} ones"
        if not allowed:
            raise UsageError(
                f"{text}, which are different quantities; use labels of that definition, or "
                "--allow-other-definition to compare them nevertheless"
            )
        logger.info(f"warning: {text}: the errors include the difference between the definitions")
    return {"definition": {"predictions": predicted, "labels": labels.definition}}


def _training_facts(manifest: Manifest, by_id: Mask, by_pixels: Mask) -> dict[str, Any]:
    """Report how many galaxies were used to train the bundle. Refuse if no other galaxy is left."""
    recorded = training_set.is_recorded(manifest)
    trained = int((by_id | by_pixels).sum())
    if not recorded:
        logger.info("  the training galaxies of the bundle are unknown: some of them may be among these")
    elif trained:
        logger.info(
            f"  omitted: {trained:,} that were used to train the bundle ({int(by_id.sum()):,} by id, "
            f"{int(by_pixels.sum()):,} by pixels)"
        )
    if trained == len(by_id):
        raise UsageError(
            f"all {trained:,} labeled galaxies were used to train the bundle; use others to evaluate it"
        )
    return {
        "trained_the_bundle": {
            "known": recorded,
            "galaxies": trained,
            "by_id": int(by_id.sum()),
            "by_pixels": int(by_pixels.sum()),
        }
    }


def _labeled(labels: Labels, known: set[str], what: str) -> Labels:
    there = np.array([name in known for name in labels.ids])
    used = there & (labels.voted | _of_a_class(labels) | (labels.largest >= 0))
    if not used.any():
        raise UsageError(f"none of the {len(labels):,} labeled galaxies is among the {what}")
    logger.info(f"{int(used.sum()):,} labeled galaxies")
    for kind, count, names in (
        ("labels without", (~there).sum(), [n for n, t in zip(labels.ids, there, strict=True) if not t]),
        ("without a label among the", len(known) - there.sum(), sorted(known - set(labels.ids))),
    ):
        if count:
            logger.info(f"  omitted: {int(count):,} {kind} {what} ({', '.join(names[:EXAMPLES])}, ...)")
    return labels.take(np.flatnonzero(used))


def _of_a_class(labels: Labels) -> Mask:
    return np.asarray((labels.classes >= 0) & (labels.classes != NO_CLASS))


def _find_images(
    images: str,
) -> tuple[Mapping[str, Any], Callable[[Sequence[Any]], Iterable[tuple[str, bytes]]]]:
    """Return the place of each image by its galaxy's id, and a function that reads images from places."""
    path = storage.local_path(images)
    if path is not None and holds_zips(path):
        return list_images(path), read_images
    objects = {stem(info.uri): info.uri for info in list_objects(images)}
    return objects, lambda uris: ((uri, storage.read_bytes(uri)) for uri in uris)


def _decode(images: Iterable[tuple[str, bytes]]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp]]:
    cutouts, rows = [], []
    for row, (name, data) in enumerate(images):
        try:
            cutouts.append(Decoder().decode(data)[0])
            rows.append(row)
        except RejectError as error:
            logger.info(f"  omitted: {name}: {error}")
    if not cutouts:
        raise UsageError("none of the labeled images can be read")
    return np.stack(cutouts), np.array(rows, np.intp)


def _intervals(manifest: Manifest, summary: Summary) -> dict[str, tuple[Float, Float]]:
    fitted = Predictive.of_json(manifest["calibration"]["combinations"]["bayesian+svr"])
    return {f"{level:g}": fitted.interval(summary.prob, summary.std, level) for level in metrics.LEVELS}


def _judge_conditional(manifest: Manifest, summary: Summary, labels: Labels) -> dict[str, Any]:
    """Evaluate the intervals of conditional fractions, which bundles of earlier releases lack."""
    asked = manifest["calibration"]["combinations"]["bayesian+svr"].get("conditional")
    if asked is None or not labels.voted.any():
        return {}
    fitted = Predictive.of_json(asked, conditional=True)
    return {"conditional": conditional_metrics(fitted, summary.prob, summary.std, labels)}


def judge(
    labels: Labels,
    values: dict[str, Float],
    intervals: dict[str, tuple[Float, Float]],
    appearance: Mapping[str, npt.NDArray[np.float64]] | None = None,
) -> dict[str, Any]:
    """Compare predictions with labels.

    Args:
        labels: Labels of N galaxies.
        values: `prob`, `std`, `lo` and `hi`, float32 `[N, 37]` each.
        intervals: Lower and upper ends, float32 `[N, 37]`, by level.
        appearance: Result of `looks.measure` on their images; None without images.

    Returns:
        The metrics, as plain data.
    """
    voted, largest = np.flatnonzero(labels.voted), np.flatnonzero(labels.largest >= 0)
    clear = np.flatnonzero(_of_a_class(labels))
    counts = {"voted": len(voted), "classes": len(clear), "largest": len(largest)}
    result: dict[str, Any] = {"galaxies": counts}
    if len(voted):
        chosen = labels.take(voted)
        ends = {level: (lo[voted], hi[voted]) for level, (lo, hi) in intervals.items()}
        of_voted = {name: value[voted] for name, value in values.items()}
        result |= _judge_votes(chosen, of_voted, ends)
        if appearance is not None:
            cells = metrics.Cells(of_voted["lo"], of_voted["hi"], chosen, of_voted["prob"])
            result["by_look"] = looks.by_fifth(cells, {k: v[voted] for k, v in appearance.items()})
    if len(clear):
        result["clear_classes"] = metrics.clear_metrics(values["prob"][clear], labels.classes[clear])
    if len(largest):
        result["largest"] = metrics.largest_metrics(values["prob"][largest], labels.largest[largest])
    return result


def _judge_votes(
    labels: Labels, values: dict[str, Float], intervals: dict[str, tuple[Float, Float]]
) -> dict[str, Any]:
    prob, error = values["prob"], metrics.squared_error(values["prob"], labels)
    result: dict[str, Any] = {
        "points": metrics.point_metrics(prob, labels),
        "vote_noise_rmse": round(metrics.vote_noise(labels), 4),
        "fractions": int(labels.known.sum()),
        "reliability": metrics.reliability(prob, labels),
        "intervals": {level: metrics.coverage(lo, hi, labels, prob) for level, (lo, hi) in intervals.items()},
        "risk_coverage": {
            "interval width": metrics.risk_coverage(error, (values["hi"] - values["lo"]).mean(axis=1)),
            "epistemic spread": metrics.risk_coverage(error, values["std"].mean(axis=1)),
        },
    }
    for level, (lo, hi) in intervals.items():
        score = distributions.interval_score(lo, hi, labels.cumulative, float(level))
        result["intervals"][level]["interval_score"] = round(float(np.nanmean(score)), 4)
    if len(intervals) > 1:
        predictive, levels = distributions.quantiles_of_intervals(prob, intervals)
        result["distribution"] = distributions.distribution_metrics(predictive, levels, labels)
    return result


def _write(result: dict[str, Any], output: str) -> dict[str, Any]:
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (folder / "evaluation.html").write_text(page(result), encoding="utf-8")
    for line in _lines(result):
        logger.info(line)
    logger.info(f"written: {folder / 'evaluation.json'} and evaluation.html")
    return result


def _lines(result: dict[str, Any]) -> list[str]:
    lines = []
    if "points" in result:
        points, noise = result["points"], result["vote_noise_rmse"]
        lines.append(
            f"RMSE {points['rmse']:.4f} (vote noise {noise:.4f}), votes' likelihood {points['votes_nll']:.2f}"
        )
        for level, found in result["intervals"].items():
            lines.append(
                f"{float(level):.0%} intervals contain {found['coverage']:.1%} of the fractions, "
                f"{found.get('coverage_asked', math.nan):.1%} where asked, mean width {found['width']:.3f}"
            )
    if "conditional" in result:
        found = result["conditional"]
        lines.append(
            f"90% intervals contain {found['coverage']:.1%} of the conditional fractions, mean width "
            f"{found['width']:.3f}"
        )
    if "distribution" in result:
        found = result["distribution"]["all"]
        lines.append(f"CRPS {found['crps']:.4f}, calibration error {found['calibration_error']:.3f}")
    if "clear_classes" in result:
        lines.append(f"five clear classes: {result['clear_classes']['accuracy']:.1%} correct")
    if "largest" in result:
        lines.append(f"largest of the 37 fractions: {result['largest']['accuracy']:.1%} correct")
    if "out_of_distribution" in result:
        lines.append(f"out-of-distribution AUC {result['out_of_distribution']['auc']:.3f}")
        lines.append(f"a rotation by 90 degrees changes the blend by {result['rotation_mean_change']:.4f}")
    return lines
