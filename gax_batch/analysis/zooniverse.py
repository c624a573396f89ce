"""Selected galaxies as subjects of a citizen-science project: images, and the manifest for uploading.

The manifest is that of Zooniverse's Project Builder and of `panoptes subject-set upload-subjects`: a CSV file
next to the images with a row per subject. Columns whose name begins with # are hidden from volunteers. Both
tools treat every cell that could be a file's name as one. Therefore no cell is empty, and only the cells of
`image` end like the name of an image.
"""

import csv
import difflib
import io
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

from gax_batch import gz2, storage
from gax_batch.analysis.cutouts import PLAN_GONE, locate_cutouts
from gax_batch.analysis.selection import CRITERIA, ChosenGalaxies, select
from gax_batch.errors import FatalError, TransientError, UsageError
from gax_batch.imaging.cutout import IMAGE_SIDE, ImageFlag
from gax_batch.imaging.decoding import Decoder
from gax_batch.rejects import Reason, Reject, RejectError, Stage
from gax_batch.sources import Found, Pixels, Stored, visit_members
from gax_batch.storage.listing import list_objects

logger = logging.getLogger(__name__)

MANIFEST = "manifest.csv"
MAX_IMAGE_BYTES = 1_000 * 1024
"""Image formats that Zooniverse accepts."""
SHOWN_SIDE = 256
"""Side in pixels to which a cutout of 64 pixels is enlarged."""

_SUFFIXES = {b"\xff\xd8\xff": "jpg", b"\x89PNG\r\n\x1a\n": "png"}
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_NAME_CHARACTERS = 80
_SHOWN_LOST = 5


@dataclass(slots=True)
class Subjects:
    """The images that were written, and the galaxies without one.

    Attributes:
        images: File names by row of the selection.
        lost: Rejects of the galaxies without an image, by row.
    """

    images: dict[int, str] = field(default_factory=dict)
    lost: dict[int, Reject] = field(default_factory=dict)

    @property
    def reasons(self) -> Counter[str]:
        """Number of missing images by reason."""
        return Counter(str(reject.reason) for reject in self.lost.values())


def write_subjects(
    catalog: str,
    selection: ChosenGalaxies,
    root: str,
    *,
    by: str,
    question: str | None,
    sources: str | None = None,
) -> Subjects:
    """Write the images of selected galaxies, read again from their sources, and the manifest.

    A JPEG or PNG that is small enough is copied. Otherwise the image shows the cutout.

    Args:
        catalog: URI of the catalog.
        selection: Selected galaxies of the catalog.
        root: URI of an empty folder or prefix.
        by: Criterion of the selection, for the manifest.
        question: Question of the selection, for the manifest.
        sources: Folder or prefix that now contains the survey's files, see `gax_batch.open_catalog`.

    Returns:
        The images that were written. Galaxies whose sources are missing or changed are not in the manifest.

    Raises:
        UsageError: The output cannot be written.
    """
    subjects = Subjects()
    catalog = storage.normalize_uri(catalog)
    ids = selection.galaxies["galaxy_id"].to_pylist()
    for members, places, decoder in locate_cutouts(catalog, selection.galaxies, sources):
        writer = _Writer(decoder, root, ids, places, subjects)
        try:
            visit_members(members, writer, decoder)
        except (TransientError, FatalError) as error:
            writer.give_up(Reject.of(Stage.READ, Reason.UNREADABLE, str(error)))
        if writer.unwritable is not None:
            raise UsageError(f"{root} cannot be written: {writer.unwritable}; free space or check it")
    for row in set(range(len(ids))) - subjects.images.keys() - subjects.lost.keys():
        subjects.lost[row] = PLAN_GONE
    manifest = _manifest(selection, subjects, by, question)
    storage.write_bytes(storage.join(root, MANIFEST), manifest.encode())
    return subjects


class _Writer:
    """Writes the image of each member that is read."""

    def __init__(
        self,
        decoder: Decoder,
        root: str,
        ids: Sequence[str],
        rows: npt.NDArray[np.int64],
        subjects: Subjects,
    ) -> None:
        self._decoder = decoder
        self.unwritable: OSError | None = None
        self._root, self._ids, self._rows, self._subjects = root, ids, rows, subjects

    def take(self, place: int, found: Found) -> None:
        row = int(self._rows[place])
        try:
            if isinstance(found, RejectError):
                raise found
            data, suffix = _picture(found, self._decoder)
        except RejectError as error:
            self._subjects.lost[row] = error.reject
            return
        digits = len(str(len(self._ids)))
        safe = _UNSAFE.sub("_", self._ids[row])[:_NAME_CHARACTERS]
        name = f"{row + 1:0{digits}}-{safe}.{suffix}"
        try:
            storage.write_bytes(storage.join(self._root, name), data)
        except OSError as error:
            self.unwritable = error  # if it were raised here, it would count as a fault of the source
        else:
            self._subjects.images[row] = name

    def take_cutouts(self, places: npt.NDArray[np.int64], pixels: Pixels) -> None:
        for place, cutout in zip(places.tolist(), pixels, strict=True):
            self.take(place, cutout.reshape(IMAGE_SIDE, IMAGE_SIDE, 3))

    def mark(self, place: int, flags: ImageFlag) -> None:
        pass

    def give_up(self, reject: Reject) -> None:
        for row in set(self._rows.tolist()) - self._subjects.images.keys() - self._subjects.lost.keys():
            self._subjects.lost[row] = reject


def _picture(found: Stored, decoder: Decoder) -> tuple[bytes, str]:
    """Return an image file of the stored image, and its suffix. Refuse an image that cannot be decoded."""
    cutout, _ = decoder.decode(found)
    if isinstance(found, bytes) and len(found) < MAX_IMAGE_BYTES:
        suffix = next((s for magic, s in _SUFFIXES.items() if found.startswith(magic)), None)
        if suffix is not None:
            return found, suffix
    image = Image.fromarray(cutout).resize((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue(), "png"


def _manifest(selection: ChosenGalaxies, subjects: Subjects, by: str, question: str | None) -> str:
    text = io.StringIO()
    galaxies = selection.galaxies
    hidden = ["score", "ra", "dec", "gz2_class", "bundle_id"]
    hidden += [] if question is None else [name for name in galaxies.column_names if name.endswith("_prob")]
    writer = csv.writer(text, lineterminator="\n")
    facts = ["#rank", "#by", "#question", "#catalog_version", *(f"#{name}" for name in hidden)]
    writer.writerow(["subject_id", "image", *facts])
    for row, values in enumerate(galaxies.to_pylist()):
        if row in subjects.images:
            known = [row + 1, by, question or "all", selection.version, *(values[name] for name in hidden)]
            cells = ["none" if value is None else value for value in known]
            writer.writerow([values["galaxy_id"], subjects.images[row], *cells])
    return text.getvalue()


def select_subjects(
    catalog: str,
    *,
    by: str,
    question: str | None,
    count: int,
    diverse: bool,
    output: str,
    sources: str | None = None,
) -> Subjects:
    """Select galaxies, write them as subjects, and report the result.

    Args:
        catalog: URI of the catalog.
        by: One of `selection.CRITERIA`.
        question: Name of a question or its beginning; None for all of them.
        count: Number of galaxies.
        diverse: See `selection.select`.
        output: An empty folder or prefix.

        sources: Folder or prefix that now contains the survey's files, see `gax_batch.open_catalog`.

    Raises:
        UsageError: The criterion or question is unknown, the scores are missing, or the output is not empty.
        FatalError: A file of the catalog is unreadable.
        TransientError: The catalog's store kept failing.
    """
    if by not in CRITERIA:
        nearest = difflib.get_close_matches(by, CRITERIA, n=1, cutoff=0)[0]
        raise UsageError(f"galaxies are not selected by '{by}'; did you mean '{nearest}'?")
    if by == "ood" and question is not None:
        raise UsageError("the out-of-distribution score does not depend on a question; omit --question")
    asked = gz2.QUESTIONS if question is None else (gz2.find_question(question),)
    root = _empty(output)
    selection = select(catalog, by=by, questions=asked, count=count, diverse=diverse)
    found = len(selection.galaxies)
    fewer = f": all available ones, fewer than {count:,}" if found < count else ""
    logger.info(f"{found:,} of {selection.considered:,} galaxies selected by {by}{fewer}")
    name = None if question is None else asked[0].name
    subjects = write_subjects(catalog, selection, root, by=by, question=name, sources=sources)
    logger.info(f"{len(subjects.images):,} images and {MANIFEST} are in {output}")
    ids = selection.galaxies["galaxy_id"]
    for row, reject in sorted(subjects.lost.items())[:_SHOWN_LOST]:
        logger.info(f"  no image of {ids[row].as_py()}: {reject.reason}: {reject.detail}")
    if (more := len(subjects.lost) - _SHOWN_LOST) > 0:
        logger.info(f"  and {more:,} more without an image: {dict(subjects.reasons)}")
    return subjects


def _empty(output: str) -> str:
    root = storage.normalize_uri(output)
    taken = next(iter(list_objects(root, missing_ok=True)), None)
    if taken is not None:
        raise UsageError(f"{output} already contains something ({taken.uri}); choose an empty folder")
    storage.check_writable(root)
    return root
