"""Decoding in separate processes: a decoder that crashes costs one input. Imports `media`, `sources`, `cameras`."""
