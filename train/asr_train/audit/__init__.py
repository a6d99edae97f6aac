"""What gives the label of a data folder away without any trace of a generator. Imports `data`, `figures`."""
