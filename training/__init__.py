"""Training of a bundle: data, losses, a recipe for each model, calibration, evaluation."""
