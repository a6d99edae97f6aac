"""`asr-serve`: a page to drop pictures on, and an HTTP API with the records of asr-screen.

Imports every other room, and `screening`; nothing imports this one.
"""
