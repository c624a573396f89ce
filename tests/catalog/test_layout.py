from hypothesis import given
from hypothesis import strategies as st

from gax_batch.catalog import layout
from gax_batch.catalog.layout import PartName

words = st.text("0123456789abcdef", min_size=1, max_size=16)


@given(
    st.builds(PartName, words, words, words, words, words, st.none() | st.integers(0, 10**9)),
    st.sampled_from(["", "s3://b/parts/x/galaxies/"]),
)
def test_a_part_name_comes_back_from_its_key_with_and_without_a_prefix(name, prefix):
    found = PartName.parse(prefix + name.key)
    assert found == name
    assert found.rejects == name.rejects


def test_other_files_are_no_parts():
    for key in (
        "part-00000-c0ffee.snappy.parquet",
        "parts/settings/unit.parquet",
        "parts/settings/a-b-c.parquet.tmp",
        "parts/deeper/settings/a-b-c.parquet",
        "galaxies/_delta_log/00000000000000000000.json",
    ):
        assert PartName.parse(key) is None


def test_every_object_of_a_catalog_is_below_one_of_its_folders():
    catalog = "s3://bucket/catalog"
    uris = [
        layout.table(catalog, layout.GALAXIES_TABLE),
        layout.parts_folder(catalog, "settings"),
        *(layout.companion(catalog, kind, "parts/s/u-f-d.parquet") for kind in layout.COMPANIONS),
        layout.run_record(catalog, "run"),
        layout.plan_file(catalog, "run", 0),
        f"{layout.frames_folder(catalog)}/index",
    ]
    tops = {uri.removeprefix(catalog + "/").partition("/")[0] for uri in uris}
    assert tops == layout.TOP_LEVEL


def test_a_part_lies_in_its_settings_folder():
    name = PartName("settings", "unit", "print", "origin", "digest")
    whole = f"{layout.table('/c', layout.GALAXIES_TABLE)}/{name.key}"
    assert whole.startswith(layout.parts_folder("/c", "settings") + "/")
