"""Where cutouts come from: loose images or Parquet shards, on any storage."""

from gax_batch import storage
from gax_batch.errors import UsageError
from gax_batch.sources.base import CUTOUT_SCHEMA, MEMBER_SCHEMA, Source
from gax_batch.sources.images import SUFFIXES as IMAGE_SUFFIXES
from gax_batch.sources.images import ImageSource
from gax_batch.sources.positions import read_positions
from gax_batch.sources.reading import read_unit
from gax_batch.sources.shards import SUFFIXES as SHARD_SUFFIXES
from gax_batch.sources.shards import ShardSource

__all__ = ["CUTOUT_SCHEMA", "MEMBER_SCHEMA", "Source", "open_source", "read_unit"]


def open_source(
    uri: str, *, positions: str | None = None, limit: int | None = None, exclude: str | None = None
) -> Source:
    """Open a survey: a folder, prefix, glob or single object of images or of Parquet shards.

    Args:
        uri: Where it is.
        positions: A table of positions, joined by galaxy id (`gax_batch.sources.positions`).
        limit: Take the first so many cutouts only, in the order of their URIs.
        exclude: A URI below which nothing is the survey's: the catalog, which may be in the input folder.

    Raises:
        UsageError: Nothing is there, both kinds are there, or neither; or the input is in `exclude`.
        TransientError: The store kept failing.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the limit must be 1 or more, not {limit}")
    if exclude is not None:
        exclude = storage.normalize_uri(exclude)
        if storage.is_within(storage.normalize_uri(uri), exclude):
            raise UsageError(
                f"the input {uri} is in the catalog {exclude}; give the catalog a folder of its own"
            )
    objects = storage.list_objects(uri, exclude=exclude)
    images = [info for info in objects if _is_named(info.uri, IMAGE_SUFFIXES)]
    shards = [info for info in objects if _is_named(info.uri, SHARD_SUFFIXES)]
    if images and shards:
        raise UsageError(
            f"{uri} holds {len(images)} images and {len(shards)} Parquet shards; name one kind, "
            "for example by a glob such as '**/*.parquet'"
        )
    if not images and not shards:
        wanted = ", ".join(IMAGE_SUFFIXES + SHARD_SUFFIXES)
        raise UsageError(f"{uri} holds {len(objects)} objects, but none is an image or a shard ({wanted})")
    known = None if positions is None else read_positions(positions)
    ignored = len(objects) - len(images) - len(shards)
    kind = ImageSource if images else ShardSource
    return kind(images or shards, ignored=ignored, positions=known, limit=limit)


def _is_named(uri: str, suffixes: tuple[str, ...]) -> bool:
    """Whether the name ends so and is not hidden (`._1.jpg` beside `1.jpg` is no galaxy)."""
    return uri.lower().endswith(suffixes) and not uri.rsplit("/", 1)[-1].startswith(".")
