"""One exported file and the engine that runs it: frames -> probabilities. Imports `contract`, `media.regular_file`."""
