import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics.pairwise import rbf_kernel

from gax_batch import gz2
from gax_batch.errors import FatalError, UsageError
from gax_batch.models import svr
from gax_batch.models.bundle import Bundle, load_bundle
from gax_batch.models.engine import Engine
from gax_batch.models.nesting import Nesting, mean_variance
from gax_batch.models.runtime import tf

NUMBERS = (
    "prob",
    "std",
    "lo",
    "hi",
    "svr",
    "entropy",
    "mutual_info",
    "ood_score",
    "gz2_class_margin",
    "draws",
)


@pytest.fixture(scope="module")
def bundle():
    return load_bundle()


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def precision(request):
    return request.param


@pytest.fixture(scope="module")
def engine(bundle, precision):
    return Engine(bundle, models=("bayesian", "classic", "svr"), draws=3, precision=precision)


@pytest.fixture(scope="module")
def images():
    """Elliptical blobs with noise: enough like galaxies to give different answers."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64] - 31.5
    blobs = [np.exp(-np.hypot(x, y * rng.uniform(1, 4)) / rng.uniform(4, 10)) for _ in range(20)]
    noise = rng.normal(0, 4, (20, 64, 64, 3))
    return np.clip(np.stack(blobs)[..., None] * rng.uniform(60, 250, (20, 1, 1, 3)) + noise, 0, 255).astype(
        np.uint8
    )


def assert_same_bits(first, second):
    assert first.gz2_class == second.gz2_class
    for name in NUMBERS:
        a, b = np.ascontiguousarray(getattr(first, name)), np.ascontiguousarray(getattr(second, name))
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32), err_msg=name)


def test_rows_are_consistent_probabilities_inside_their_intervals(engine, images):
    summary = engine.summarize(images)
    for values in (summary.prob, summary.svr, *engine.predictions(images).values()):
        assert values.shape == (20, 37)
        assert np.all((values >= 0) & (values <= 1))
        assert gz2.inconsistency(values) < 1e-5
    assert np.all((summary.lo >= 0) & (summary.lo <= summary.prob))
    assert np.all((summary.hi <= 1) & (summary.hi >= summary.prob))
    assert np.all((summary.mutual_info >= 0) & (summary.mutual_info <= summary.entropy))
    assert np.all((summary.ood_score >= 0) & (summary.ood_score <= 1))


def test_every_draw_is_consistent_and_draws_differ(engine, images):
    draws = engine.draws(images)
    assert draws.shape == (3, 20, 37)
    assert gz2.inconsistency(draws) < 1e-5
    assert np.all((draws >= 0) & (draws <= 1))
    assert np.all(draws.std(axis=0).max(axis=1) > 0)


@pytest.fixture(scope="module")
def steps(bundle, images):
    """Summaries by 128 and by all 256 draws of every galaxy, and the Monte Carlo errors of the first."""
    few, many = (Engine(bundle, draws=8 * passes, passes=passes) for passes in (16, 32))
    variance = mean_variance(few.draws(images), Nesting(128, 8).blocks())
    return few.summarize(images), many.summarize(images), np.sqrt(variance.max(axis=-1))


def test_what_a_gpu_runs_says_the_same(bundle, images, monkeypatch):
    options = {"models": ("bayesian", "classic", "svr"), "draws": 3, "micro_batch": 16}
    here = Engine(bundle, precision="float32", **options)
    monkeypatch.setattr("gax_batch.models.engine.configure", lambda threads: True)
    there = Engine(bundle, precision="float32", **options)
    expected, found = here.outputs(images), there.outputs(images)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=2e-5, err_msg=name)


def test_a_large_micro_batch_is_summarized_in_pieces_in_order(bundle, images, monkeypatch):
    monkeypatch.setattr("gax_batch.models.engine.SUMMARIZED_ROWS", 16)
    pieces = Engine(bundle, models=("bayesian",), draws=2, micro_batch=64).summarize(images)
    monkeypatch.undo()
    whole = Engine(bundle, models=("bayesian",), draws=2, micro_batch=64).summarize(images)
    assert_same_bits(pieces, whole)
    assert len(pieces.prob) == len(images)


def first_draws(summary):
    return replace(summary, draws=summary.draws[:, :64])


@pytest.mark.parametrize(("target", "step"), [(0.5, 0), (1e-9, 1)])
def test_a_target_error_that_all_or_none_reach(bundle, images, steps, target, step):
    found = Engine(bundle, draws=256, target_error=target).summarize(images)
    assert_same_bits(found, first_draws(steps[step]))


def test_more_draws_are_for_those_that_need_them_whatever_the_others(bundle, images, steps):
    few, many, error = steps
    target = float(np.median(error))
    engine = Engine(bundle, draws=256, target_error=target)
    found = engine.summarize(images)
    for needs, expected in ((False, few), (True, many)):
        rows = np.flatnonzero((error > target) == needs)
        assert len(rows) == 10
        assert_same_bits(found.take(rows), first_draws(expected).take(rows))
    order = np.random.default_rng(1).permutation(len(images))[:13]
    assert_same_bits(engine.summarize(images[order]), found.take(order))
    assert engine.summarize(images[:0]).draws.shape == (0, 64, 37)


@pytest.mark.parametrize("wrong", [{"draws": 144}, {"draws": 128, "models": ("svr",)}])
def test_a_target_error_needs_whole_sets_of_draws(bundle, wrong):
    with pytest.raises(UsageError, match="64"):
        Engine(bundle, target_error=0.01, **wrong)


def test_galaxies_get_different_answers(engine, images):
    assert np.ptp(engine.summarize(images).prob[:, 0]) > 0.05


def test_a_row_does_not_depend_on_place_neighbors_number_or_padding(engine, images):
    whole = engine.summarize(images)
    order = np.array([7, 2, 19, 0, 11, 18, 3])
    moved = engine.summarize(images[order])
    for row, source in enumerate(order):
        for name in NUMBERS:
            a, b = getattr(moved, name)[row], getattr(whole, name)[source]
            np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32), err_msg=name)
    assert_same_bits(engine.summarize(images[:1]), whole.head(1))
    assert_same_bits(engine.summarize(images), whole)


def test_another_engine_gives_the_same_bits(bundle, precision, engine, images):
    again = Engine(bundle, models=("svr", "classic", "bayesian"), draws=3, precision=precision)
    assert_same_bits(again.summarize(images[:5]), engine.summarize(images[:5]))


def test_processes_with_one_and_more_threads_give_the_same_bits(precision, images, tmp_path):
    # Two new processes, since this one's TensorFlow may have been started by another test.
    script = (
        "import sys, numpy as np\n"
        "from gax_batch.models.engine import Engine\n"
        "from gax_batch.models.bundle import load_bundle\n"
        "options = dict(models=('bayesian', 'classic', 'svr'), draws=3)\n"
        "options |= dict(threads=int(sys.argv[3]), precision=sys.argv[4])\n"
        "engine = Engine(load_bundle(), **options)\n"
        "np.savez(sys.argv[2], **engine.outputs(np.load(sys.argv[1])))\n"
    )
    source = tmp_path / "images.npy"
    np.save(source, images[:17])
    targets = {threads: tmp_path / f"{threads}.npz" for threads in (1, 3)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(source), str(target), str(threads), precision],
            stderr=subprocess.DEVNULL,
        )
        for threads, target in targets.items()
    ]
    assert [process.wait() for process in processes] == [0, 0]
    with np.load(targets[1]) as one, np.load(targets[3]) as three:
        for name in one:
            np.testing.assert_array_equal(
                one[name].view(np.uint32), three[name].view(np.uint32), err_msg=name
            )


def test_fewer_draws_are_a_prefix(bundle, precision, engine, images):
    fewer = Engine(bundle, models=("bayesian",), draws=2, precision=precision)
    np.testing.assert_array_equal(fewer.draws(images[:4]), engine.draws(images[:4])[:2])


def test_float32_and_bfloat16_nearly_agree(bundle, images):
    engines = [Engine(bundle, precision=precision) for precision in ("float32", "bfloat16")]
    exact, rounded = (engine.summarize(images).prob for engine in engines)
    assert np.abs(exact - rounded).max() < 0.03
    assert np.abs(exact - rounded).mean() < 0.002


def test_auto_is_the_machines_faster_precision(bundle, engine, precision, images, monkeypatch):
    rates = dict.fromkeys(("float32", "bfloat16"), 1.0) | {precision: 2.0}
    monkeypatch.setattr("gax_batch.models.engine.rates_of_machine", lambda measure: rates)
    auto = Engine(bundle, models=("bayesian", "classic", "svr"), draws=3)
    assert_same_bits(auto.summarize(images[:3]), engine.summarize(images[:3]))


def test_no_galaxies_give_no_rows(engine, images):
    summary = engine.summarize(images[:0])
    assert summary.prob.shape == (0, 37)
    assert summary.columns().keys() == engine.summarize(images[:1]).columns().keys()
    assert engine.draws(images[:0]).shape == (3, 0, 37)
    assert summary.draws.shape == (0, 3, 37)


def test_the_catalogs_draws_spread_about_its_fractions(engine, images):
    summary = engine.summarize(images)
    assert summary.draws.shape == (20, 3, 37)
    assert gz2.inconsistency(summary.draws) < 1e-5
    np.testing.assert_allclose(summary.draws.mean(axis=1), summary.prob, atol=1e-6)
    np.testing.assert_allclose(summary.draws.std(axis=1), summary.std, atol=1e-6)
    assert np.all(summary.std.max(axis=1) > 0)


def test_the_regressions_draws_are_fractions_that_scatter(engine, images):
    outputs = engine.outputs(images)
    draws = outputs["svr_draws"]
    assert outputs["svr"].shape == (20, 37)
    assert draws.shape == (16, 20, 37)
    assert gz2.inconsistency(draws) < 1e-5
    assert np.all((draws >= 0) & (draws <= 1))
    assert np.all(draws.std(axis=0).max(axis=1) > 0)
    np.testing.assert_array_equal(engine.outputs(images[:5])["svr_draws"], draws[:, :5])


def test_a_galaxy_that_trained_the_regressions_does_not_score_as_its_own_neighbor(bundle, precision, images):
    arrays = dict(bundle.arrays["svr"])
    pictures = tf.constant(images.astype(np.float32) / 255)
    features = svr.Features(arrays, tf.float32)(pictures).numpy()
    support = arrays["svr/support"].copy()
    support[:20] = (features - arrays["svr/mean"]) / arrays["svr/deviation"]
    kernel = rbf_kernel(support[:20], support, gamma=arrays["svr/gamma"][0])
    itself = np.arange(len(support)) == np.arange(20)[:, None]
    expected = np.where(itself, 0, kernel).max(axis=1)
    trained = Bundle("trained", bundle.manifest, {**bundle.arrays, "svr": arrays | {"svr/support": support}})
    score = Engine(trained, models=("svr",), precision=precision).summarize(images).ood_score
    # Also in bfloat16, in which no image has the very features that trained.
    np.testing.assert_allclose(1 - score, expected, atol=1e-4 if precision == "float32" else 0.02)
    assert np.all(score > 0.001)


@pytest.mark.parametrize("models", [("classic",), ("svr",)])
def test_models_that_do_not_run_leave_nan(bundle, images, models):
    engine = Engine(bundle, models=models)
    summary = engine.summarize(images[:4])
    assert np.isfinite(summary.prob).all()
    assert np.isfinite(summary.lo).all()
    assert np.isnan(summary.std).all()
    assert np.isnan(summary.svr).all() == ("svr" not in models)
    with pytest.raises(UsageError, match="bayesian"):
        engine.draws(images[:4])


@pytest.mark.parametrize("options", [{"models": ()}, {"models": ("cnn",)}, {"draws": 0}, {"micro_batch": 24}])
def test_impossible_engines_are_refused(bundle, options):
    with pytest.raises(UsageError):
        Engine(bundle, **options)


def test_a_bundle_without_its_arrays_is_refused(bundle):
    empty = Bundle("empty", bundle.manifest, {"bayesian": {}, "classic": {}, "svr": {}})
    with pytest.raises(UsageError, match="empty"):
        Engine(empty, draws=1)


def test_broken_weights_end_the_run(bundle, images):
    broken = {name: dict(arrays) for name, arrays in bundle.arrays.items()}
    broken["classic"]["logits/bias"] = np.full(37, np.nan, np.float32)
    engine = Engine(Bundle("broken", bundle.manifest, broken), models=("classic",))
    with pytest.raises(FatalError, match=r"classic.*NaN"):
        engine.summarize(images[:1])


def test_wrong_images_are_refused(engine):
    with pytest.raises(FatalError, match="uint8"):
        engine.summarize(np.zeros((1, 32, 32, 3), np.uint8))
