"""How a bundle is made: data, losses, one recipe per model, calibration, evaluation."""
