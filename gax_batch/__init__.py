"""gax-batch: a survey's galaxy cutouts go in, a catalog of morphology probabilities comes out."""

__version__ = "0.1.0"
