"""Sources -> records: decodes ahead, scores, combines frames over time, counts.

Imports `sources`, `cameras`, `isolation`, `inference`, `provenance`, `records`.
"""
