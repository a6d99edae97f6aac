"""Reading what files say about themselves, in a separate process. Imports `claims`, `isolation` and `sources`."""
