"""`asr-screen --ray`: archives that are too large for one machine, in chunks, on a Ray cluster.

Imports `sources`, `isolation`, `inference`, `screening`, `records`; nothing but the command line imports this one.
"""
