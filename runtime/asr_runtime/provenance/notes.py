"""Notes in a picture: text chunks that generators write, IPTC and tools in XMP, the camera in EXIF."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import IO, Any

from PIL import Image, UnidentifiedImageError

from asr_runtime.claims import Claim
from asr_runtime.provenance.origins import generator_in, origin_of, source_type_name

__all__ = ["read_notes"]

Image.MAX_IMAGE_PIXELS = None  # only headers are read
_SHOWN = 160  # characters of a note
_EXIF_IFD, _MAKE, _MODEL, _SOFTWARE, _DESCRIPTION, _USER_COMMENT = 0x8769, 0x10F, 0x110, 0x131, 0x10E, 0x9286
_SOURCE_TYPE = re.compile(r"""DigitalSourceType(?:\s*=\s*["']|[^<>]*>\s*|[^<>]*resource=["'])([^"'<>\s]+)""")
_TOOL = re.compile(r"""(?:CreatorTool|photoshop:Credit)(?:\s*=\s*["']([^"']*)|>([^<]*))""")
_PARAMETERS = re.compile(r"\bSteps: \d+, .*\b(?:Sampler|CFG scale|Seed)\b", re.DOTALL)
_MODEL_OF = re.compile(r"\bModel: ([^,\n]+)")


def read_notes(file: IO[bytes]) -> list[Claim]:
    """Read the notes of a picture without decoding it; none where Pillow does not know the format."""
    try:
        with Image.open(file) as image:
            texts = {str(k): _text(v) for k, v in image.info.items() if isinstance(v, str | bytes)}
            exif = image.getexif()
            tags: dict[int, Any] = {**exif, **exif.get_ifd(_EXIF_IFD)}
    except UnidentifiedImageError:
        return []
    except Exception as error:  # what a hostile file brings Pillow to raise is not listed anywhere
        return [Claim("file", "other", f"The notes of the file cannot be read ({type(error).__name__}).")]
    xmp = texts.pop("xmp", "") or texts.pop("XML:com.adobe.xmp", "")
    texts.pop("exif", None)
    return [*_from_texts(texts), *_from_xmp(xmp), *_from_exif(tags)]


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")


def _from_texts(texts: Mapping[str, str]) -> Iterator[Claim]:
    """Recognise what the common interfaces write into PNG files."""
    if _PARAMETERS.search(parameters := texts.get("parameters", "")):
        yield Claim("png", "generated", _automatic1111(parameters))
    graph = _json(texts.get("prompt", "")) or _json(texts.get("workflow", ""))
    if isinstance(graph, dict) and ("nodes" in graph or any("class_type" in str(node) for node in graph.values())):
        yield Claim("png", "generated", f"A ComfyUI workflow ({len(graph.get('nodes', graph))} nodes)")
    for key in ("invokeai_metadata", "sd-metadata", "Dream", "invokeai_graph"):
        if texts.get(key):
            yield Claim("png", "generated", f"InvokeAI wrote: {_short(_prompt(texts[key]))}")
            break
    if texts.get("fooocus_scheme"):
        yield Claim("png", "generated", "Fooocus wrote its parameters")
    for key in ("Software", "Description", "Comment", "Title", "Source"):
        if generator := generator_in(texts.get(key, "")):
            yield Claim(
                "png", "generated", f"{key}: {_short(texts[key])}" if key == "Software" else f"{key} names {generator}"
            )
            break


def _automatic1111(parameters: str) -> str:
    model = _MODEL_OF.search(parameters)
    with_model = f", model {_short(model[1])}" if model else ""
    return f"Parameters as AUTOMATIC1111 writes them{with_model}: {_short(parameters.splitlines()[0])}"


def _from_xmp(xmp: str) -> Iterator[Claim]:
    if match := _SOURCE_TYPE.search(xmp):
        yield Claim("iptc", origin_of(match[1]), f"Digital source type {source_type_name(match[1])}")
    for tool in _TOOL.finditer(xmp):
        name = tool[1] or tool[2] or ""
        if generator_in(name):
            yield Claim("xmp", "generated", f"Made with {_short(name)}")
            return


def _from_exif(tags: Mapping[int, Any]) -> Iterator[Claim]:
    comment = tags.get(_USER_COMMENT, b"")
    comment = comment[8:].replace(b"\0", b"").decode(errors="replace") if isinstance(comment, bytes) else str(comment)
    if _PARAMETERS.search(comment):
        yield Claim("exif", "generated", _automatic1111(comment))
    named = " ".join(str(tags.get(tag, "")) for tag in (_SOFTWARE, _DESCRIPTION))
    if generator := generator_in(named):
        yield Claim("exif", "generated", f"Software or description names {generator}")
    camera = " ".join(str(tags[tag]).strip("\0 ") for tag in (_MAKE, _MODEL) if tags.get(tag))
    if camera:
        yield Claim("exif", "camera", f"Camera {_short(camera)}; anyone can write this")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _prompt(text: str) -> str:
    data = _json(text)
    return str(data.get("positive_prompt") or data.get("prompt") or text) if isinstance(data, dict) else text


def _short(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
