"""One exported file and its engine: frames -> probabilities. Imports `contract`, `windows`, `media.regular_file`."""
