"""Settings by topic. Each class declares the name, type, default, range and meaning of its settings.

`gax_batch.runner.settings` combines them into the settings of a command. The options of the command line, the
YAML file and the documentation are generated from them. Larger modules are imported where a value is used,
because `gax --help` loads this module.
"""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from gax_batch.imaging.defaults import DEFAULT_PRESET, DEFAULT_RADIUS_ARCSEC, GZ2_CROP, PresetName
from gax_batch.imaging.limits import DEFAULT_UNIT_SIZE, MAX_UNIT_SIZE, ImageLimits, ListingLimits
from gax_batch.rejects import MAX_ATTEMPTS
from gax_batch.runner.model_settings import PASSES_PER_SECOND
from gax_batch.runner.setting_types import (
    AutoCount,
    AutoSeconds,
    AutoStoreMib,
    Bins,
    Fraction,
    Settings,
    Uri,
    VariableName,
    in_panel,
)

if TYPE_CHECKING:
    from gax_batch.catalog.sums import Grouping
    from gax_batch.imaging.decoding import Decoder


class InputSettings(Settings):
    """Settings of the input: location and format of the cutouts."""

    input: Uri = Field(
        description="Cutouts to read: a folder, prefix or glob of JPEG, PNG, TIFF or FITS images, or of "
        "Parquet shards. A local path or a URI (s3://, gs://, az://, https://).",
        json_schema_extra=in_panel("Input"),
    )
    positions: Uri | None = Field(
        None,
        description="Table of positions with the columns galaxy_id, ra, dec (degrees, ICRS) and, for frames, "
        "radius (arcsec). CSV, Parquet, FITS or VOTable.",
        json_schema_extra=in_panel("Input"),
    )
    limit: int | None = Field(
        None,
        ge=1,
        description="Use only the first N cutouts, in the order of their URIs.",
        json_schema_extra=in_panel("Input", absent="all"),
    )
    frames: bool = Field(
        False,
        description="Read the input as FITS frames of one file per band, named by the band (field7-r.fits). "
        "Galaxies are cut out of the frames at the positions, which define the survey.",
        json_schema_extra=in_panel("Input"),
    )
    frame_index: Uri | None = Field(
        None,
        description="Folder of the index of the frames (.gax-frames.parquet).",
        json_schema_extra=in_panel("Input", absent="the folder frames of the catalog; none for gax pack"),
    )
    band_files: bool = Field(
        False,
        description="Read the input as FITS cutouts of one file per band, named by the band "
        "(1237648720-r.fits). Files whose names differ only in the band belong to one galaxy.",
        json_schema_extra=in_panel("Input"),
    )
    max_id_characters: int = Field(
        ListingLimits().id_characters,
        ge=1,
        le=65_536,
        description="Reject galaxies whose galaxy_id has more characters than this.",
        json_schema_extra=in_panel("Limits"),
    )
    max_shard_members: int = Field(
        ListingLimits().shard_members,
        ge=1,
        description="Largest number of entries in a tar file, or of rows in a Parquet shard. A larger one is "
        "an error.",
        json_schema_extra=in_panel("Limits"),
    )

    @property
    def listing_limits(self) -> ListingLimits:
        """Limits of a listing."""
        return ListingLimits(self.max_id_characters, self.max_shard_members)


class ColorSettings(Settings):
    """Settings of the colors of cutouts."""

    preset: PresetName = Field(
        DEFAULT_PRESET,
        description="Mapping from the bands of FITS files to red, green and blue: sdss-gri, legacy-grz, "
        "hsc-gri, panstarrs-gri, or single for one band.",
        json_schema_extra=in_panel("Input"),
    )


class DecodeSettings(ColorSettings):
    """Settings of the decoding of images into cutouts."""

    crop: float = Field(
        GZ2_CROP,
        gt=0,
        le=1,
        description="Side of the central square to use, as a fraction of the shorter side of the image. The "
        "default is 256/424, the scale of Galaxy Zoo 2.",
        json_schema_extra=in_panel("Input"),
    )
    default_radius: float = Field(
        DEFAULT_RADIUS_ARCSEC,
        gt=0,
        le=3600,
        description="Petrosian R90 in arcsec of galaxies on frames whose radius is not in the table of "
        "positions.",
        json_schema_extra=in_panel("Input"),
    )
    max_image_bytes: int = Field(
        ImageLimits().bytes,
        ge=1,
        description="Reject objects with more bytes than this.",
        json_schema_extra=in_panel("Limits"),
    )
    max_image_pixels: int = Field(
        ImageLimits().pixels,
        ge=1,
        description="Reject images with more pixels than this, before they are decoded.",
        json_schema_extra=in_panel("Limits"),
    )
    max_image_expansion: int = Field(
        ImageLimits().expansion,
        ge=1,
        description="Reject images as decompression bombs if they unpack to more than this many times their "
        "encoded size, and to more than 16 MiB.",
        json_schema_extra=in_panel("Limits"),
    )
    max_image_header_bytes: int = Field(
        ImageLimits().header_bytes,
        ge=2880,
        description="Reject FITS files whose headers have more bytes in total than this.",
        json_schema_extra=in_panel("Limits"),
    )
    max_image_memory_mib: int = Field(
        ImageLimits().memory_mib,
        ge=256,
        description="Memory in MiB that reading one unit may allocate. A cutout that needs more is rejected.",
        json_schema_extra=in_panel("Limits"),
    )

    @property
    def decoder(self) -> "Decoder":
        """Decoder that makes cutouts of images."""
        from gax_batch.imaging.decoding import Decoder

        limits = ImageLimits.of_settings(self.model_dump())
        return Decoder(crop=self.crop, limits=limits, preset=self.preset, default_radius=self.default_radius)


class SurveySettings(DecodeSettings, InputSettings):
    """Settings of the input and of its decoding."""


class CatalogSettings(Settings):
    """Settings of the catalog: location, stored columns, and units to process again."""

    catalog: Uri = Field(
        description="Catalog to create or update: a local path, s3://, gs:// or az://.",
        json_schema_extra=in_panel("Catalog"),
    )
    full: bool = Field(
        False,
        description="Process every unit again, whether it changed or not. An interrupted run starts over.",
        json_schema_extra=in_panel("Catalog"),
    )
    prune: bool = Field(
        False,
        description="Remove galaxies whose cutouts are no longer in the input. Otherwise they stay in the "
        "catalog.",
        json_schema_extra=in_panel("Catalog"),
    )
    redo_companions: bool = Field(
        False,
        description="Process units again that lack the sums or draws that these settings request.",
        json_schema_extra=in_panel("Catalog"),
    )
    keep_draws: bool = Field(
        False,
        description="Store the draws of every galaxy as float16: about 5 kB per galaxy at 64 draws.",
        json_schema_extra=in_panel("Catalog"),
    )
    population_order: int | None = Field(
        2,
        ge=0,
        le=5,
        description="Order of the HEALPix cells that `gax population` can distinguish; null in YAML for no "
        "cells. Each cell with galaxies takes about 14 kB per unit at 64 draws.",
        json_schema_extra=in_panel("Catalog"),
    )
    population_bins: Bins = Field(
        {},
        description="Bins that `gax population` can distinguish: edges by numeric column of the catalog. On "
        "the command line: 'ood_score=0,0.5,1;ra=0,180,360'.",
        json_schema_extra=in_panel("Catalog", absent="none"),
    )

    @property
    def grouping(self) -> "Grouping":
        """Groups of galaxies whose sums are stored."""
        from gax_batch.catalog.sums import Grouping

        return Grouping(self.population_order, self.population_bins)


class UnitSettings(Settings):
    """Settings of the units of work."""

    unit_size: int = Field(
        DEFAULT_UNIT_SIZE,
        ge=1,
        le=MAX_UNIT_SIZE,
        description="Cutouts per unit of work. Each unit becomes one Parquet part.",
        json_schema_extra=in_panel("Resources"),
    )


class ResourceSettings(UnitSettings):
    """Settings of the resources on a machine or a Ray cluster."""

    workers: AutoCount = Field(
        "auto",
        description="Actors that hold the models. auto starts one per GPU, or without a GPU one that uses "
        "every core.",
        json_schema_extra=in_panel("Resources"),
    )
    ray_address: str | None = Field(
        None,
        description="Ray cluster to join: HOST:PORT of its head, or auto for the one on this machine.",
        json_schema_extra=in_panel("Resources", absent="RAY_ADDRESS if it is set, else a local Ray"),
    )
    cpus: AutoCount = Field(
        "auto",
        description="Logical CPUs of a local Ray. auto uses all of the machine.",
        json_schema_extra=in_panel("Resources"),
    )
    engine_cpus: float | None = Field(
        None,
        gt=0,
        description="CPUs to request per engine of a Ray cluster, and threads of the engine. If it is set, "
        "the cluster may have no nodes yet: its autoscaler starts them for the engines.",
        json_schema_extra=in_panel("Resources", absent="a share of the cluster"),
    )
    engine_gpus: float | None = Field(
        None,
        gt=0,
        description="GPUs to request per engine of a Ray cluster.",
        json_schema_extra=in_panel("Resources", absent="a share of the cluster"),
    )
    object_store_mib: AutoStoreMib = Field(
        "auto",
        description="Memory of the object store of a local Ray, MiB. auto derives it from the unit size.",
        json_schema_extra=in_panel("Resources"),
    )


class LimitSettings(Settings):
    """Settings that determine when a run retries, warns and stops."""

    max_rejects: Fraction = Field(
        0.05,
        description="Fraction of the cutouts of a run that may be rejected (0.01 or 1%). If more are, and "
        "more than 10, the input or a setting is probably wrong: the run stops before its commit, after "
        "1,000 cutouts and each unit, or at its end. Below 1, the run also stops if its catalog would "
        "have no galaxies, or if no cutout of a sample of more than 1,000 is good.",
        json_schema_extra=in_panel("Limits"),
    )
    max_removed: Fraction = Field(
        0.05,
        description="Fraction of the cutouts of the catalog that `prune` may remove (0.01 or 1%). If more "
        "are missing from the input, and more than 10 or all, the input is probably wrong: the run stops.",
        json_schema_extra=in_panel("Limits"),
    )
    max_attempts: int = Field(
        MAX_ATTEMPTS,
        ge=1,
        description="Maximum number of runs that retry a cutout after a storage error; each run tries twice. "
        "Afterwards the cutout stays a reject until its version changes.",
        json_schema_extra=in_panel("Limits"),
    )
    unit_seconds: AutoSeconds = Field(
        "auto",
        description="Seconds that reading, inferring or writing one unit may take. Then its worker is "
        "terminated, and the cutout that causes the delay is rejected. auto allows 300 s, plus 1 s per "
        f"cutout and {PASSES_PER_SECOND} passes, plus 1 s per 4 MiB of objects.",
        json_schema_extra=in_panel("Limits"),
    )
    stall_minutes: float = Field(
        15,
        gt=0,
        description="Warn after this many minutes without progress, and report which steps stall.",
        json_schema_extra=in_panel("Limits"),
    )
    give_up_minutes: float = Field(
        120,
        gt=0,
        description="End the run with exit code 4 after this many minutes without progress.",
        json_schema_extra=in_panel("Limits"),
    )
    grace: float = Field(
        600.0,
        gt=0,
        description="Seconds for which the first Ctrl-C or SIGTERM lets the units that are being inferred "
        "finish; their results are kept. A second one stops immediately.",
        json_schema_extra=in_panel("Limits"),
    )


class OutputSettings(Settings):
    """Settings of the reports of a run."""

    log_format: Literal["text", "json"] = Field(
        "text",
        description="Format of the progress report. text: a live display on a terminal, plain lines "
        "elsewhere. json: one object per line.",
        json_schema_extra=in_panel("Output"),
    )
    webhook: VariableName | None = Field(
        None,
        description="Name of the environment variable that holds a URL. The summary of the run is posted to "
        "it as JSON when the run ends. The URL is a secret and is never written.",
        json_schema_extra=in_panel("Output", absent="no message"),
    )
