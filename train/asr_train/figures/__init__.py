"""Scores -> figures: metrics, intervals, calibration, the content-only control, plots. Imports `data`."""
