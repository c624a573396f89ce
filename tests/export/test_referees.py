"""Validators and readers of the community, which judge what `gax publish` writes in each format.

`make referees` installs those that are not Python packages. `test_hats_catalog` asks hats and LSDB.
"""

import io
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits, votable
from astropy.io.votable.ucd import check_ucd
from published_catalogs import SMOOTH, Survey, write_part

from gax_batch.catalog.schema import CONDITIONAL_COLUMNS
from gax_batch.export.formats import Format
from gax_batch.export.selection import Selection, choose_columns
from gax_batch.export.tables import publish_table
from gax_batch.export.tasks import INDEX

# Debian's STILTS is built without the libraries that it needs for Parquet and ECSV.
STILTS_READS = {Format.VOTABLE: "votable", Format.FITS: "fits-plus", Format.CSV: "csv"}
SAID = {
    "title": "Étoiles & <rings>",
    "reference": "2013MNRAS.435.2835W",
    "license": "https://creativecommons.org/licenses/by/4.0/",
}
ONE_FILE = [form for form in Format if form is not Format.HATS]


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; make referees installs it")
    return found


def judge(*words: str) -> str:
    """What a tool prints, on both streams; it must succeed."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> dict[Format, Path]:
    """One small catalog as each kind of file, all columns, with a condition that XML has to escape."""
    survey = Survey(tmp_path_factory.mktemp("judged"))
    survey.commit(*(write_part(survey.catalog, number) for number in range(2)))
    chosen = Selection(choose_columns(()), f"{SMOOTH} > 0.5 AND gz2_class <> '<&>'")
    provenance = replace(survey.provenance(), where=chosen.where, **SAID)
    paths = {form: survey.folder / f"galaxies.{form}" for form in ONE_FILE}
    for form, path in paths.items():
        publish_table(survey.root, survey.keys, chosen, provenance, form, f"file://{path}")
    return paths


def as_votable_1_4(document: bytes) -> bytes:
    """The same document for a votlint that is older than VOTable 1.5, which has added `refposition`."""
    document, versions = re.subn(rb'(<VOTABLE version=")1\.5', rb"\g<1>1.4", document)
    document, places = re.subn(rb' refposition="[A-Z]+"', b"", document)
    assert (versions, places) == (1, 1)
    return document


def test_votlint_finds_nothing_in_a_votable(published, tmp_path):
    path = published[Format.VOTABLE]
    said = judge(tool("stilts"), "votlint", str(path))
    if "Unknown VOTable version" in said:
        older = tmp_path / "older.vot"
        older.write_bytes(as_votable_1_4(path.read_bytes()))
        said = judge("stilts", "votlint", str(older))
    assert said.strip() == ""


def test_fitsverify_finds_nothing_and_checks_the_sums(published):
    said = judge(tool("fitsverify"), str(published[Format.FITS]))
    assert "Verification found 0 warning(s) and 0 error(s)" in said
    # Of each HDU: fitsverify warns of a wrong sum only where the keywords are.
    with fits.open(published[Format.FITS]) as hdus:
        assert all({"CHECKSUM", "DATASUM"} <= set(hdu.header) for hdu in hdus)


@pytest.mark.filterwarnings("error")
def test_astropy_verifies_the_checksums_and_finds_the_frame(published):
    with fits.open(published[Format.FITS], checksum=True) as hdus:
        hdus.verify("exception")
        assert hdus[1].header["RADESYS"] == "ICRS"
        assert hdus[1].header["LONGSTRN"] == "OGIP 1.0"
        assert len(hdus[1].data) > 0
        # REFERENC is the word that the standard reserves for a citation.
        assert (hdus[1].header["REFERENC"], hdus[1].header["LICENSE"]) == (SAID["reference"], SAID["license"])
        assert hdus[1].header["TITLE"].endswith("toiles & <rings>")


def test_a_damaged_row_is_found_by_the_checksum(published, tmp_path):
    path = tmp_path / "damaged.fits"
    data = bytearray(published[Format.FITS].read_bytes())
    data[-2880] ^= 1
    path.write_bytes(data)
    with pytest.warns(match="verification failed"), fits.open(path, checksum=True) as hdus:
        assert len(hdus) == 2


@pytest.mark.parametrize("form", STILTS_READS)
def test_stilts_reads_every_row_and_the_same_numbers(form, published):
    """Of a FITS file, `fits-plus` takes no other kind: its VOTable must be recognized."""
    stilts = tool("stilts")
    words = ["tpipe", f"in={published[form]}", f"ifmt={STILTS_READS[form]}"]
    ours = votable.parse_single_table(published[Format.VOTABLE]).to_table()
    columns = f"keepcols 'galaxy_id ra {SMOOTH}'"
    said = judge(stilts, *words, f"cmd={columns}", "omode=out", "ofmt=csv", "out=-")
    head, *rows = said.strip().splitlines()
    assert head == f"galaxy_id,ra,{SMOOTH}"
    found = [line.split(",") for line in rows]
    assert [row[0] for row in found] == [str(name) for name in ours["galaxy_id"]]
    ra = np.array([float(row[1] or "nan") for row in found])
    np.testing.assert_array_equal(ra, np.ma.filled(ours["ra"], np.nan))
    smooth = np.array([row[2] for row in found], np.float32)
    np.testing.assert_array_equal(smooth, ours[SMOOTH])


@pytest.mark.filterwarnings("error")
def test_astropy_validates_the_votable(published):
    with io.StringIO() as said:
        assert votable.validate(published[Format.VOTABLE], output=said)
    document = votable.parse(published[Format.VOTABLE], verify="exception")
    assert document.version == "1.5"
    infos = {info.name: info.value for info in document.resources[0].infos}
    assert SAID.items() <= infos.items()
    (system,) = document.resources[0].coordinate_systems
    assert (system.system, system.refposition) == ("ICRS", "BARYCENTER")
    fields = {field.name: field for field in document.get_first_table().fields}
    assert [name for name, field in fields.items() if field.ref == system.ID] == ["ra", "dec"]


@pytest.mark.parametrize("column", [INDEX, *CONDITIONAL_COLUMNS], ids=lambda column: column.name)
def test_ucds_are_of_the_controlled_vocabulary(column):
    """Those of the stored columns are a test of the schema."""
    assert check_ucd(column.ucd, check_controlled_vocabulary=True)


def test_a_name_of_a_column_and_of_a_fact_do_not_collide(published):
    document = published[Format.VOTABLE].read_text()
    names = re.findall(r'\bID="([^"]*)"', document)
    assert len(names) == len(set(names))
