"""Settings of the models: which networks classify the galaxies, and with how many draws."""

from pydantic import Field, ValidationInfo, field_validator

from gax_batch.models import DEFAULT_DRAWS, DEFAULT_MODELS, DEFAULT_PASSES, Precision
from gax_batch.models.nesting import DEFAULT, Nesting, allows_stages
from gax_batch.runner.setting_types import ModelNames, Settings, Uri, in_panel

PASSES_PER_SECOND = 32
"""Passes per second and cutout of the slowest machine that is not taken for a stalled one."""


class ModelSettings(Settings):
    """Settings of the networks that classify galaxies."""

    bundle: Uri | None = Field(
        None,
        description="Folder or URI of the model bundle.",
        json_schema_extra=in_panel("Models", absent="the shipped bundle"),
    )
    models: ModelNames = Field(
        DEFAULT_MODELS,
        description="Networks to run, separated by commas: bayesian, svr, classic. Their fractions are "
        "blended with the weights of the bundle.",
        json_schema_extra=in_panel("Models"),
    )
    draws: int = Field(
        DEFAULT_DRAWS,
        ge=2,
        le=1024,
        description="Weight draws from the posterior of the Bayesian CNN. Every galaxy uses the same draws.",
        json_schema_extra=in_panel("Models"),
    )
    passes: int = Field(
        DEFAULT_PASSES,
        ge=2,
        le=1024,
        description="Passes through the convolutions that carry the draws. Draws of one pass share its "
        "convolutions and have dense layers of their own, which cost almost nothing. More passes lower the "
        "Monte Carlo error and take more time.",
        json_schema_extra=in_panel("Models"),
    )
    precision: Precision = Field(
        "auto",
        description="Number format of the convolutions: float32, bfloat16 or auto. auto is the precision "
        "that the catalog was made with, or the faster one for a new catalog.",
        json_schema_extra=in_panel("Models"),
    )


class InferenceSettings(ModelSettings):
    """Settings of the networks that classify the galaxies of a survey."""

    target_error: float | None = Field(
        None,
        gt=0,
        le=0.5,
        description="Keep drawing for a galaxy until the Monte Carlo error of every fraction of the Bayesian "
        f"CNN is at most this value. Uses {2 * DEFAULT.draws} to `draws` draws, {DEFAULT.heads} of "
        f"each pass (`passes` is not used). Only the first {DEFAULT.draws} are stored and summed.",
        json_schema_extra=in_panel("Models", absent="all draws"),
    )

    @field_validator("target_error")
    @classmethod
    def _in_sets(cls, value: float | None, info: ValidationInfo) -> float | None:
        draws, models = info.data.get("draws", DEFAULT.draws), info.data.get("models", ("bayesian",))
        if value is not None and "bayesian" not in models:
            raise ValueError("requires bayesian among the models")
        if value is not None and not allows_stages(draws):
            raise ValueError(
                f"requires a multiple of {DEFAULT.draws} draws and at least {2 * DEFAULT.draws}, not "
                f"{draws}; try {8 * DEFAULT.draws}"
            )
        return value

    @property
    def most_passes(self) -> int:
        """Maximum number of passes through the convolutions for a galaxy."""
        if self.target_error is None:
            return Nesting.of(self.draws, self.passes).passes
        return self.draws // DEFAULT.heads

    @property
    def stored_draws(self) -> int:
        """Number of draws that every galaxy has. The sums of the survey are computed from them."""
        return self.draws if self.target_error is None else DEFAULT.draws
