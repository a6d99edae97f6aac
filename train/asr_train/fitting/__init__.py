"""One training: configuration -> run folder, by gradient or in closed form. Imports `data`, `figures`, `tracking`."""
