"""A detector on a data folder -> report: text, JSON, CSV, one HTML page. Imports `data`, `figures`."""
