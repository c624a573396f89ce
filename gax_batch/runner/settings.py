"""Every setting of a run: frozen, typed, documented where it stands, and the same name as its flag.

Known to `cli` and to what it calls for a run alone; everything below takes plain values.
"""

import difflib
import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import to_jsonable_python

from gax_batch.catalog.schema import NUMERIC_COLUMNS
from gax_batch.catalog.sums import Grouping, are_edges, parse_edges
from gax_batch.cluster.unit_tracker import StepLimit
from gax_batch.errors import UsageError
from gax_batch.imaging.cutout import GZ2_CROP
from gax_batch.imaging.decoding import DEFAULT_RADIUS_ARCSEC, Decoder
from gax_batch.imaging.limits import MAX_UNIT_SIZE, ImageLimits, ListingLimits
from gax_batch.models import DRAW_SET, FIRST_DRAWS, ModelName, Precision
from gax_batch.rejects import MAX_ATTEMPTS

LogFormat = Literal["text", "json"]

RAY_LEAST_STORE_MIB = 75
URI_KEYS = ("input", "catalog", "positions", "bundle", "frame_index")


class RunSettings(BaseModel):
    """The settings of `gax run`; the YAML file of `--config` has exactly these keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: str = Field(
        description="Where the cutouts are: a folder, prefix or glob of JPEG, PNG, TIFF or FITS images, or "
        "of Parquet shards; a local path or a URI (s3://, gs://, az://, https://)."
    )
    catalog: str = Field(
        description="The catalog to write or bring up to date: a local path, s3://, gs:// or az://."
    )
    positions: str | None = Field(
        None,
        description="Table of galaxy_id, ra, dec (deg, ICRS) and, for frames, radius (arcsec): CSV, Parquet, "
        "FITS, VOTable.",
    )
    bundle: str | None = Field(
        None, description="The model bundle's folder or URI; the shipped bundle when absent."
    )
    models: tuple[ModelName, ...] = Field(
        ("bayesian", "svr"),
        min_length=1,
        description="The networks to run, blended with the bundle's weights: bayesian, svr, classic.",
    )
    draws: int = Field(
        32, ge=2, le=1024, description="Weight draws from the Bayesian posterior, the same for every galaxy."
    )
    target_error: float | None = Field(
        None,
        gt=0,
        le=0.5,
        description="Draw for each galaxy until the Monte Carlo error of each fraction of the Bayesian CNN "
        "is at most this, 32 to draws times; all draws when absent. The first 32 alone are kept and summed.",
    )
    precision: Precision = Field(
        "auto", description="Of the convolutions: float32, bfloat16; auto: the catalog's, else the faster."
    )
    unit_size: int = Field(
        4096, ge=1, le=MAX_UNIT_SIZE, description="Cutouts per unit of work, one Parquet part each."
    )
    workers: Literal["auto"] | int = Field(
        "auto", description="Actors that hold the models: auto is one per GPU, else one that uses every core."
    )
    ray_address: str | None = Field(
        None,
        description="A Ray cluster that is there already, HOST:PORT of its head, or auto for this machine's; "
        "when absent, that of RAY_ADDRESS, else a Ray of the run's own.",
    )
    cpus: Literal["auto"] | int = Field(
        "auto", description="Logical CPUs of a local Ray; auto is all of the machine's."
    )
    engine_cpus: float | None = Field(
        None,
        gt=0,
        description="CPUs that each engine asks of a Ray cluster, and its threads; where given, the cluster "
        "may have no node yet: its autoscaler starts them for the engines.",
    )
    engine_gpus: float | None = Field(
        None,
        gt=0,
        description="GPUs that each engine asks of a Ray cluster; a share of those there are when absent.",
    )
    population_order: int | None = Field(
        2,
        ge=0,
        le=5,
        description="Order of the HEALPix cells that `gax population` can tell apart; in each unit, a cell "
        "with galaxies takes some 7 kB at 32 draws.",
    )
    population_bins: dict[str, tuple[float, ...]] = Field(
        {},
        description="Edges of bins that `gax population` can tell apart, by numeric column of the catalog; "
        "as a flag: 'ood_score=0,0.5,1;ra=0,180,360'.",
    )
    keep_draws: bool = Field(
        False, description="Store every galaxy's draws too, as float16: some 2 kB a galaxy at 32 draws."
    )
    redo_companions: bool = Field(
        False, description="Process units again that lack the sums or draws that these settings ask for."
    )
    limit: int | None = Field(
        None, ge=1, description="Catalog only the first N cutouts, in the order of their URIs."
    )
    full: bool = Field(
        False,
        description="Process every unit again, whatever is there already; if interrupted, from the start.",
    )
    prune: bool = Field(
        False, description="Take cutouts out of the catalog that the input has no more; else they stay."
    )
    max_removed: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Fraction of the catalog's cutouts that prune may remove (0.01 or 1%); if more are "
        "missing from the input, and more than 10 or all, the run stops, since that is a wrong input.",
    )
    max_attempts: int = Field(
        MAX_ATTEMPTS,
        ge=1,
        description="Runs that try a cutout which the storage did not give, each of them twice; then it "
        "stays a reject until its version changes.",
    )
    unit_seconds: Literal["auto"] | float = Field(
        "auto",
        description="Seconds that reading, classifying or writing one unit may take; then its worker is "
        "ended, and the cutout that holds it up is rejected. auto is 300, and 1 per "
        "cutout of the unit and 32 draws, and per 4 MiB of its objects.",
    )
    stall_minutes: float = Field(
        15, gt=0, description="Minutes without progress after which a run says where it stalls."
    )
    give_up_minutes: float = Field(
        120, gt=0, description="Minutes without progress after which a run ends with exit code 4."
    )
    max_rejects: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Fraction of a run's cutouts that may be rejected (0.01 or 1%); if more are, and more "
        "than 10, the run stops after 1,000 cutouts or at its end, since that is a wrong input or setting. "
        "Below 1, the run also stops if its catalog would have no galaxy.",
    )
    crop: float = Field(
        GZ2_CROP,
        gt=0,
        le=1,
        description="The central part of an image's shorter side to use; 256/424 at Galaxy Zoo 2 scale.",
    )
    preset: Literal["sdss-gri", "legacy-grz", "hsc-gri", "panstarrs-gri", "single"] = Field(
        "sdss-gri",
        description="Which bands of FITS files become red, green and blue, and how: sdss-gri, legacy-grz, "
        "hsc-gri, panstarrs-gri, or single for one band.",
    )
    frames: bool = Field(
        False,
        description="The input is FITS frames, one per band, named by it (field7-r.fits); galaxies are cut "
        "out of them at the positions, which are the survey then.",
    )
    frame_index: str | None = Field(
        None,
        description="Folder in which the index of the frames (.gax-frames.parquet) is kept; by default "
        "the catalog's folder frames.",
    )
    band_files: bool = Field(
        False,
        description="The input is FITS cutouts of one file per band, named by it (1237648720-r.fits): files "
        "whose names differ in the band alone are one galaxy.",
    )
    default_radius: float = Field(
        DEFAULT_RADIUS_ARCSEC,
        gt=0,
        le=3600,
        description="Petrosian R90 in arcsec of galaxies on frames whose radius the positions do not tell.",
    )
    max_image_bytes: int = Field(
        ImageLimits().bytes, ge=1, description="Objects larger than this many bytes are rejected."
    )
    max_image_pixels: int = Field(
        ImageLimits().pixels, ge=1, description="Images with more pixels than this are rejected, undecoded."
    )
    max_image_expansion: int = Field(
        ImageLimits().expansion,
        ge=1,
        description="Images that unpack to more than this many times their bytes, and to more than 16 MiB, "
        "are rejected as decompression bombs.",
    )
    max_image_header_bytes: int = Field(
        ImageLimits().header_bytes,
        ge=2880,
        description="FITS files whose headers have more bytes together than this are rejected.",
    )
    max_image_memory_mib: int = Field(
        ImageLimits().memory_mib,
        ge=256,
        description="Memory that reading a unit may take at once, MiB; a cutout that needs more is rejected.",
    )
    max_id_characters: int = Field(
        ListingLimits().id_characters,
        ge=1,
        le=65_536,
        description="Galaxies with a longer galaxy_id are rejected.",
    )
    max_shard_members: int = Field(
        ListingLimits().shard_members,
        ge=1,
        description="A tar of more entries, or a Parquet shard of more rows, ends the command.",
    )
    object_store_mib: Literal["auto"] | int = Field(
        "auto", description="Memory of a local Ray's object store, MiB; auto follows the unit size."
    )
    grace: float = Field(
        600.0,
        gt=0,
        description="Seconds that units in flight have to end after SIGINT (Ctrl-C) or SIGTERM; a second one "
        "stops at once.",
    )
    log_format: LogFormat = Field(
        "text", description="text: a live display on a terminal, lines elsewhere; json: one object a line."
    )
    webhook: str | None = Field(
        None,
        description="Name of the environment variable with the URL to which the end of a run is posted as "
        "JSON; the URL itself, a secret, is never written.",
    )

    @field_validator("webhook")
    @classmethod
    def _by_reference(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
            raise ValueError(
                "is the name of an environment variable that holds the URL, which is a secret: "
                "export GAX_WEBHOOK=https://..., and give GAX_WEBHOOK"
            )
        return value

    @field_validator(*URI_KEYS)
    @classmethod
    def _without_secrets(cls, value: str | None) -> str | None:
        # A URI is written into plans, records and tables; a secret in it would be too.
        parts = urlsplit(value or "")
        # Azure's URIs name container@account, which is no secret.
        if parts.password or (parts.username and parts.scheme not in ("abfs", "abfss")):
            raise ValueError("holds credentials; give them by the environment or the machine's role instead")
        if parts.scheme in ("http", "https") and (parts.query or parts.fragment):
            raise ValueError("holds a query, which may be a signature; give a plain URI")
        return value

    @field_validator("models", mode="before")
    @classmethod
    def _split_models(cls, value: object) -> object:
        names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
        # The order says nothing, so one order stands for all: it is part of a catalog's fingerprint.
        return tuple(sorted(set(names))) if isinstance(names, (list, tuple)) else names

    @field_validator("target_error")
    @classmethod
    def _in_sets(cls, value: float | None, info: ValidationInfo) -> float | None:
        draws, models = info.data.get("draws", DRAW_SET), info.data.get("models", ("bayesian",))
        if value is not None and (draws % DRAW_SET or "bayesian" not in models):
            raise ValueError(f"needs draws that are a multiple of {DRAW_SET}, and bayesian among the models")
        return value

    @field_validator("population_bins", mode="before")
    @classmethod
    def _parse_bins(cls, value: object) -> object:
        return parse_edges(value) if isinstance(value, str) else value

    @field_validator("population_bins")
    @classmethod
    def _check_bins(cls, value: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
        for column, edges in value.items():
            if column not in NUMERIC_COLUMNS:
                nearest = difflib.get_close_matches(column, NUMERIC_COLUMNS, n=1, cutoff=0)[0]
                raise ValueError(f"'{column}' is no numeric column of the catalog; did you mean '{nearest}'?")
            if not are_edges(edges):
                raise ValueError(f"the edges of '{column}' must be two or more increasing numbers")
        # One order stands for all: it is part of a catalog's fingerprint.
        return dict(sorted(value.items()))

    @field_validator("max_rejects", "max_removed", mode="before")
    @classmethod
    def _percent(cls, value: object) -> object:
        if isinstance(value, str) and value.strip().endswith("%"):
            try:
                return float(value.strip().removesuffix("%")) / 100
            except ValueError:
                raise ValueError("is a fraction such as 0.05, or percent such as 5%") from None
        return value

    @field_validator("workers", "cpus", "unit_seconds", "object_store_mib")
    @classmethod
    def _large_enough(cls, value: "str | float", info: ValidationInfo) -> "str | float":
        least = RAY_LEAST_STORE_MIB if info.field_name == "object_store_mib" else 1
        if not isinstance(value, str) and value < least:
            raise ValueError(f"must be 'auto' or at least {least}")
        return value

    @property
    def stored_draws(self) -> int:
        """The draws that every galaxy has, of which the survey's sums are made."""
        return self.draws if self.target_error is None else min(self.draws, FIRST_DRAWS)

    @property
    def grouping(self) -> Grouping:
        """By what galaxies are told apart in the sums that are stored."""
        return Grouping(self.population_order, self.population_bins)

    @property
    def listing_limits(self) -> ListingLimits:
        """What a listing may hold."""
        return ListingLimits(self.max_id_characters, self.max_shard_members)

    @property
    def step_limit(self) -> StepLimit:
        """How long one step of a unit may take."""
        fixed = None if self.unit_seconds == "auto" else self.unit_seconds
        return StepLimit(cutout_seconds=max(1.0, self.draws / 32), seconds=fixed)

    @property
    def decoder(self) -> Decoder:
        """What makes cutouts of images."""
        limits = ImageLimits.of_settings(self.model_dump())
        return Decoder(crop=self.crop, limits=limits, preset=self.preset, default_radius=self.default_radius)


def load_settings(config_file: str | None, flags: dict[str, Any]) -> RunSettings:
    """Merge a YAML file and command-line flags; flags win.

    Args:
        config_file: path of a YAML mapping, or None.
        flags: settings by name; None means "not given".

    Raises:
        UsageError: unreadable file, unknown key (the nearest right one is named), or a value out of range.
    """
    values = _read_yaml(config_file) if config_file else {}
    known = list(RunSettings.model_fields)
    for key in values:
        if key not in known:
            nearest = difflib.get_close_matches(str(key).replace("-", "_"), known, n=1, cutoff=0)[0]
            raise UsageError(f"{config_file}: unknown key '{key}'; did you mean '{nearest}'?")
    values |= {key: value for key, value in flags.items() if value is not None}
    for key in ("input", "catalog"):
        if not values.get(key):
            raise UsageError(f"no {key} given: pass --{key} URI or set '{key}' in the --config file")
    try:
        return RunSettings(**values)
    except ValidationError as error:
        raise UsageError(_first_problem(error)) from None


def describe_settings(settings: RunSettings | None = None) -> str:
    """The settings as commented YAML that `--config` reads back; the defaults where none are given."""
    lines = []
    for name, field in RunSettings.model_fields.items():
        default = None if field.is_required() else field.default
        value = default if settings is None else getattr(settings, name)
        plain = to_jsonable_python(value)
        # PyYAML ends a lone scalar with a document marker.
        shown = yaml.safe_dump(plain, default_flow_style=True).removesuffix("...\n").strip()
        lines += [f"# {field.description}", f"{name}: {shown}", ""]
    return "\n".join(lines)


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"cannot read the configuration {path}: {reason}; pass a readable YAML file"
        ) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(
            f"{path} is not a mapping; write one 'key: value' a line, as `gax config show` prints"
        )
    return values


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    key = str(problem["loc"][0])
    value = "" if key in (*URI_KEYS, "webhook") else f" cannot be {problem['input']!r}"
    return f"setting '{key}'{value}: {problem['msg']}; see `gax run --help`"
