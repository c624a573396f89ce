import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from listings import listed

from gax_batch import gz2
from gax_batch.errors import UsageError
from gax_batch.imaging.decoding import Decoder
from gax_batch.simulate import survey
from gax_batch.simulate.survey import simulate_survey, simulate_table
from gax_batch.sources import open_source, read_unit


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def images(table: pa.Table) -> np.ndarray:
    return np.frombuffer(b"".join(table["image"].to_pylist()), np.uint8).reshape(-1, 64, 64, 3)


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return simulate_table(7, 0, 320)


def test_the_same_seed_gives_the_same_bytes_for_any_number_of_processes(tmp_path: Path) -> None:
    one = simulate_survey(str(tmp_path / "one"), 300, 5, shard_size=100, processes=1)
    two = simulate_survey(str(tmp_path / "two"), 300, 5, shard_size=100, processes=2)
    assert (one.galaxies, one.shards, one.written) == (two.galaxies, two.shards, two.written) == (300, 3, 3)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_survey_is_the_beginning_of_a_longer_one_whatever_its_shards(
    tmp_path: Path, table: pa.Table
) -> None:
    simulate_survey(str(tmp_path), 150, 7, shard_size=70, processes=1)
    assert pq.read_table(tmp_path).equals(table.slice(0, 150))
    assert simulate_table(7, 100, 200).equals(table.slice(100, 100))


def test_another_seed_gives_other_galaxies(table: pa.Table) -> None:
    other = simulate_table(8, 0, 64)
    assert not np.isin(other["ra"], table["ra"]).any()
    assert not np.array_equal(images(other), images(table.slice(0, 64)))


def test_rows_are_complete_and_the_truth_is_tree_consistent(table: pa.Table) -> None:
    assert table.schema.equals(survey.SCHEMA)
    assert table["galaxy_id"][:2].to_pylist() == ["sim-00000000", "sim-00000001"]
    assert len(set(table["galaxy_id"].to_pylist())) == len(table)
    assert all(column.null_count == 0 for column in table.columns)
    truth = np.stack([table[name].to_numpy() for name in survey.TRUTH_COLUMNS], axis=1)
    assert gz2.inconsistency(truth) < 1e-6
    assert table["truth_class"].to_pylist() == gz2.gz2_class(truth)
    assert set(survey.STRUCTURE_COLUMNS) >= {
        "bulge_fraction",
        "sersic_n",
        "axis_ratio",
        "position_angle",
        "n_arms",
    }


def test_pictures_show_a_galaxy_on_a_dark_sky(table: pa.Table) -> None:
    pictures = images(table)[table["kind"].to_numpy() < 3].astype(float)
    center = pictures[:, 28:36, 28:36].mean(axis=(1, 2))
    border = np.concatenate([pictures[:, :4], pictures[:, -4:]], axis=1)
    assert (center.mean(axis=1) > 30).mean() > 0.98
    assert 1 < np.median(border) < 12
    assert border.std(axis=(1, 2, 3)).min() > 0.5
    assert pictures.std(axis=(1, 2, 3)).min() > 1
    # Red and yellow bulges: the centers are brightest in i and faintest in g.
    early = table["kind"].to_numpy()[table["kind"].to_numpy() < 3] == 0
    red, green, blue = center[early].mean(axis=0)
    assert red > green > blue


def test_pictures_have_the_brightness_profile_of_real_cutouts(table: pa.Table, shared_data: Path) -> None:
    from PIL import Image

    def profile(pictures: np.ndarray) -> np.ndarray:
        y, x = np.mgrid[:64, :64] - 31.5
        radius = np.hypot(x, y)
        edges = [0, 2, 5, 8, 12, 16, 20, 25]
        rings = [(radius >= a) & (radius < b) for a, b in itertools.pairwise(edges)]
        return np.array([np.median(pictures[:, ring]) for ring in rings])

    paths = sorted((shared_data / "kaggle/images").glob("*.jpg"))[:200]
    real = [
        Image.open(path).crop((84, 84, 340, 340)).resize((64, 64), Image.Resampling.BOX) for path in paths
    ]
    np.testing.assert_allclose(profile(images(table)), profile(np.stack(real)), rtol=0.35, atol=4)


def test_the_sources_read_a_simulated_survey(tmp_path: Path, table: pa.Table) -> None:
    simulate_survey(str(tmp_path), 90, 7, shard_size=64, processes=1)
    members = listed(open_source(str(tmp_path)))
    assert len(members) == 90
    cutouts = read_unit(members, Decoder())
    assert cutouts["reason"].null_count == 90
    by_id = dict(zip(cutouts["galaxy_id"].to_pylist(), cutouts["cutout"].to_pylist(), strict=True))
    assert by_id == dict(
        zip(table["galaxy_id"][:90].to_pylist(), table["image"][:90].to_pylist(), strict=True)
    )


def test_an_interrupted_survey_is_completed(tmp_path: Path) -> None:
    simulate_survey(str(tmp_path), 128, 1, shard_size=64, processes=1)
    whole = contents(tmp_path)
    (tmp_path / sorted(whole)[0]).unlink()
    seen: list[tuple[int, int]] = []
    done = simulate_survey(
        str(tmp_path), 128, 1, shard_size=64, processes=1, progress=lambda *counts: seen.append(counts)
    )
    assert (done.shards, done.written) == (2, 1)
    assert seen == [(128, 128)]
    assert contents(tmp_path) == whole


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"galaxies": 0}, r"galaxies.* 0\b"),
        ({"galaxies": -3}, r"galaxies.* -3\b"),
        ({"seed": -1}, r"seed.* -1\b"),
        ({"shard_size": 0}, r"shard.size.* 0\b"),
        ({"processes": 0}, r"processes.* 0\b"),
        ({"seed": 2}, r"\.parquet"),
        ({"galaxies": 65}, r"\.parquet"),
    ],
)
def test_bad_arguments_and_foreign_outputs_are_refused(
    tmp_path: Path, changed: dict[str, int], message: str
) -> None:
    simulate_survey(str(tmp_path), 10, 1, processes=1)
    before = contents(tmp_path)
    arguments = {"galaxies": 10, "seed": 1, "processes": 1} | changed
    with pytest.raises(UsageError, match=message):
        simulate_survey(str(tmp_path), arguments.pop("galaxies"), arguments.pop("seed"), **arguments)
    assert contents(tmp_path) == before


def test_any_storage_takes_a_survey() -> None:
    done = simulate_survey("memory://simulated/survey", 10, 1, processes=1)
    assert len(listed(open_source(done.uri))) == 10
