"""Trainings that leave sources out, and what they are judged on. Imports `data`, `figures`, `fitting`."""
