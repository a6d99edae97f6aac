"""IPTC's vocabulary of digital source types, and the names of generators."""

from __future__ import annotations

import re

from asr_runtime.claims import Origin

__all__ = ["generator_in", "origin_of", "source_type_name"]

_ORIGINS: dict[str, Origin] = {
    "trainedAlgorithmicMedia": "generated",
    "compositeWithTrainedAlgorithmicMedia": "edited",
    "compositeSynthetic": "edited",
    "digitalCapture": "camera",
    "computationalCapture": "camera",
    "negativeFilm": "camera",
    "positiveFilm": "camera",
    "print": "camera",
}
_GENERATORS = re.compile(
    r"adobe firefly|midjourney|dall[-·.]?e|stable diffusion|automatic1111|comfyui|invokeai|novelai|fooocus|"
    r"draw things|imagen|made with google ai|flux\.1|gpt-4o|chatgpt|openai|leonardo\.ai|ideogram",
    re.IGNORECASE,
)


def source_type_name(uri: str) -> str:
    """Return the last part of the URI of a digital source type."""
    return uri.rstrip("/").rpartition("/")[2][:100]


def origin_of(uri: str) -> Origin:
    """Return what a digital source type (URI or name) means for the origin."""
    return _ORIGINS.get(source_type_name(uri), "other")


def generator_in(text: str) -> str | None:
    """Return the name of a generator that a text contains."""
    match = _GENERATORS.search(text)
    return match[0] if match else None
