"""Training, evaluation and calibration of detectors."""
