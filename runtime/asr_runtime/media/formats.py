"""What a file is, by its first bytes: which picture, which video, or neither. Reads no file and loads no OpenCV."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

__all__ = ["HEAD_BYTES", "IMAGE_SUFFIXES", "VIDEO_SUFFIXES", "Format", "kind_by_suffix", "recognise"]

HEAD_BYTES = 4096
"""How much of the beginning of a file `recognise` wants to see."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format of pictures or videos.

    Attributes:
        name: as people call it.
        kind: `image` or `video`.
        is_readable: this package can decode it, HEIC with the extra `heic`.
    """

    name: str
    kind: Literal["image", "video"]
    is_readable: bool = True


def _readable(kind: Literal["image", "video"], names: dict[str, tuple[bytes, ...]]) -> list[tuple[bytes, Format]]:
    return [(magic, Format(name, kind)) for name, magics in names.items() for magic in magics]


def _refused(kind: Literal["image", "video"], names: dict[str, tuple[bytes, ...]]) -> list[tuple[bytes, Format]]:
    return [(magic, Format(name, kind, is_readable=False)) for name, magics in names.items() for magic in magics]


_IMAGES = _readable(
    "image",
    {
        "JPEG": (b"\xff\xd8\xff",),
        "PNG": (b"\x89PNG\r\n\x1a\n",),
        "GIF": (b"GIF87a", b"GIF89a"),
        "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
        "PFM": (b"PF\n", b"Pf\n", b"PF\r\n", b"Pf\r\n"),
        "PAM": (b"P7\n",),
        "Radiance HDR": (b"#?RADIANCE", b"#?RGBE"),
        "Sun raster": (b"\x59\xa6\x6a\x95",),
    },
)
_REFUSED_IMAGES = _refused(
    "image",
    {
        "a camera's raw picture": (
            *(b"II\x2a\0\x10\0\0\0CR", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW", b"FOVb", b"\0MRM"),
            *(b"II\x1a\0\0\0HEAPCCDR", b"ARRI"),
        ),
        "Photoshop": (b"8BPS",),
        "JPEG XL": (b"\0\0\0\x0cJXL \r\n\x87\n", b"\xff\x0a"),
        "JPEG XR": (b"II\xbc\x01",),
        "OpenEXR": (b"\x76\x2f\x31\x01",),
        "GIMP": (b"gimp xcf",),
        "DirectDraw": (b"DDS \x7c\0\0\0",),
        "QOI": (b"qoif",),
        "BPG": (b"BPG\xfb",),
        "FLIF": (b"FLIF",),
        "DPX": (b"SDPX\0", b"XPDS"),
        "icon": (b"icns", b"\0\0\x01\0\x01\0", b"\0\0\x01\0\x02\0", b"\0\0\x01\0\x03\0", b"\0\0\x01\0\x04\0"),
        "MNG": (b"\x8aMNG\r\n\x1a\n", b"\x8bJNG\r\n\x1a\n"),
        "SGI": (b"\x01\xda\0\x01", b"\x01\xda\x01\x01"),
        "PCX": (b"\x0a\x05\x01\x01", b"\x0a\x05\x01\x02", b"\x0a\x05\x01\x04", b"\x0a\x05\x01\x08"),
        "JBIG2": (b"\x97JB2\r\n\x1a\n",),
        "Cineon": (b"\x80\x2a\x5f\xd7",),
        "FITS": (b"SIMPLE  =",),
        "KTX": (b"\xabKTX ",),
    },
)
_VIDEOS = _readable(
    "video",
    {
        "Matroska": (b"\x1aE\xdf\xa3",),
        "FLV": (b"FLV\x01",),
        "ASF": (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",),
        "MPEG program stream": (b"\0\0\x01\xba",),
        "MPEG video": (b"\0\0\x01\xb3", b"\0\0\x01\xb0", b"\0\0\x01\xb5"),
        "H.264": (b"\0\0\0\x01\x67", b"\0\0\x01\x67", b"\0\0\0\x01\x27", b"\0\0\x01\x27", b"\0\0\0\x01\x09"),
        "HEVC": (b"\0\0\0\x01\x40\x01", b"\0\0\x01\x40\x01", b"\0\0\0\x01\x46\x01"),
        "IVF": (b"DKIF",),
        "YUV4MPEG": (b"YUV4MPEG2 ",),
        "MXF": (b"\x06\x0e\x2b\x34\x02\x05\x01\x01",),
        "DV": (b"\x1f\x07\0",),
        "DHAV": (b"DHAV",),
        "RealMedia": (b".RMF\0\0\0",),
        "Windows Recorded TV": (b"\xb7\xd8\0\x20\x37\x49\xda\x11",),
        "NUT": (b"nut/multimedia container\0",),
        "GXF": (b"\0\0\0\0\x01\xbc\0\0\0\0\xe1\xe2", b"\0\0\0\0\x01\xbc\0\0\x01"),
        "AV1": (b"\x12\0\x0a",),
    },
)
_REFUSED_VIDEOS = _refused(
    "video",
    {
        "Flash": (b"FWS", b"CWS", b"ZWS"),
        "AMV": (b"RIFF\0\0\0\0AMV ",),
        "Bink": (b"BIKi", b"BIKb", b"KB2g", b"KB2j"),
        "Smacker": (b"SMK2", b"SMK4"),
    },
)
_SIGNATURES = (*_IMAGES, *_REFUSED_IMAGES, *_VIDEOS, *_REFUSED_VIDEOS)

_WEBP, _BMP, _TIFF, _AVIF = (Format(name, "image") for name in ("WebP", "BMP", "TIFF", "AVIF"))
_HEIF, _PNM = Format("HEIC", "image"), Format("PNM", "image")
_RAW = Format("a camera's raw picture", "image", is_readable=False)
_MP4, _AVI, _OGG = Format("MP4", "video"), Format("AVI", "video"), Format("Ogg", "video")
_TRANSPORT = Format("MPEG transport stream", "video")
_RED = Format("Redcode", "video", is_readable=False)
_PLAYLIST = Format("a playlist, which leads to other files", "video", is_readable=False)

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2", b"avci", b"avcs")
_AUDIO_BRANDS = (b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B ", b"aax ")
# Boxes with which a QuickTime file begins that has no `ftyp`.
_QUICKTIME_BOXES = (b"moov", b"mdat", b"wide", b"skip", b"free", b"pnot", b"moof", b"styp", b"sidx")
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
_OGG_VIDEO = (b"\x80theora", b"OVP80", b"BBCD", b"\x01video", b"\x80daala", b"fishead")
_TIFF_MAGICS = (b"II\x2a\0", b"MM\0\x2a", b"II\x2b\0", b"MM\0\x2b")

_RAW_SUFFIXES = frozenset(
    {".dng", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".pef", ".cr2", ".cr3", ".crw", ".orf", ".rw2", ".raf", ".rwl"}
    | {".srw", ".3fr", ".fff", ".iiq", ".erf", ".mef", ".mos", ".dcr", ".kdc", ".x3f", ".mrw", ".gpr"}
)
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".avif", ".gif"}
    | {".mpo", ".jps", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".pam", ".pfm", ".heic", ".heif", ".hif"}
)
"""Suffixes of pictures that can be decoded, HEIC with its extra."""
# Most raw pictures of cameras are TIFF files whose first picture is a small preview.
_REFUSED_SUFFIXES = _RAW_SUFFIXES | {".jxl", ".psd", ".psb", ".exr", ".xcf", ".tga", ".pcx", ".dcm"}
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".divx", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg"}
    | {".m2v", ".m1v", ".vob", ".flv", ".f4v", ".wmv", ".asf", ".ogv", ".mxf", ".ivf", ".y4m", ".dav", ".rm", ".rmvb"}
    | {".wtv", ".h264", ".264", ".avc", ".h265", ".265", ".hevc", ".mjpeg", ".mjpg"}
)
"""Suffixes of videos, without those that mostly mean something else."""
_MJPEG_SUFFIXES = (".mjpeg", ".mjpg")
_OF_TEXT = ("GIF", "PFM", "PAM", "Radiance HDR", "FITS", "YUV4MPEG")
# TypeScript has these suffixes too.
_SUFFIXES_OF_TEXT = (".ts", ".mts")
_AUDIO_SUFFIXES = (".m4a", ".m4b", ".mka", ".wma", ".oga", ".ogg", ".opus", ".spx", ".weba", ".ra", ".aac", ".mp3")


def recognise(head: bytes, name: str = "") -> Format | None:
    """Say what a file is.

    Args:
        head: its first `HEAD_BYTES` bytes, or the whole file.
        name: its name, which settles what the bytes leave open: a raw stream of JPEGs, a raw picture in a TIFF file,
            a container that holds sound only.

    Returns:
        The format; None for what is neither a picture nor a video.
    """
    suffix = PurePath(name).suffix.lower()
    if head.startswith(b"\xff\xd8\xff") and suffix in _MJPEG_SUFFIXES:
        return Format("MJPEG", "video")
    form = _by_bytes(head)
    if form == _TIFF and suffix in _RAW_SUFFIXES:
        return _RAW
    if form is not None and form.kind == "video" and suffix in _AUDIO_SUFFIXES:
        return None
    return form


def kind_by_suffix(name: str, head: bytes | None) -> Literal["image", "video"] | None:
    """Say what a file claims to be whose bytes are of no known format.

    Args:
        name: of the file.
        head: its first bytes; None where they cannot be read.

    Returns:
        The kind that the suffix names; None: neither, or a text file with the suffix of a video.
    """
    suffix = PurePath(name).suffix.lower()
    if suffix in _SUFFIXES_OF_TEXT and head and _is_text(head):
        return None
    if suffix in VIDEO_SUFFIXES:
        return "video"
    return "image" if suffix in IMAGE_SUFFIXES | _REFUSED_SUFFIXES else None


def _by_bytes(head: bytes) -> Format | None:
    for magic, form in _SIGNATURES:
        # A text may begin with letters that are also the mark of a binary format.
        if head.startswith(magic) and (form.name in _OF_TEXT or not _is_text(head[:64])):
            return form
    if head[4:8] == b"ftyp" and head[:1] == b"\0":
        return _of_brands(head)
    if head[4:8] in _QUICKTIME_BOXES and int.from_bytes(head[:4], "big") not in range(2, 8):
        return _MP4
    if head[:4] == b"RIFF":
        return {b"WEBP": _WEBP, b"AVI ": _AVI, b"AVIX": _AVI}.get(head[8:12])
    if head[:4] in _TIFF_MAGICS:
        return _TIFF
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return _BMP
    if head[:4] == b"OggS":
        return _OGG if any(mark in head for mark in _OGG_VIDEO) else None
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in (b"\n", b" ", b"\t", b"\r"):
        return _PNM if head[1:2] and _begins_numbers(head[2:]) else None
    if head[4:8] in (b"RED1", b"RED2"):
        return _RED
    if head.lstrip(b"\xef\xbb\xbf \r\n").startswith(b"#EXTM3U") and b"#EXT-X-" in head:
        return _PLAYLIST
    return _TRANSPORT if _is_transport_stream(head) else None


def _of_brands(head: bytes) -> Format | None:
    """Tell pictures, videos and sound apart that share the container of MP4."""
    length = int.from_bytes(head[:4], "big")
    major = head[8:12]
    brands = {head[at : at + 4] for at in range(16, min(length, len(head)), 4)} | {major}
    if major == b"crx ":
        return _RAW
    if major in (b"avif", b"avis") or (major in (b"mif1", b"msf1") and brands & {b"avif", b"avis"}):
        return _AVIF
    if major in _HEIF_BRANDS:
        return _HEIF
    return None if major in _AUDIO_BRANDS else _MP4


def _begins_numbers(rest: bytes) -> bool:
    """Whether a PNM header goes on as it must: blanks or comments, then a number."""
    while (rest := rest.lstrip()).startswith(b"#"):
        rest = rest.partition(b"\n")[2]
    return rest[:1].isdigit()


def _is_transport_stream(head: bytes) -> bool:
    """Whether the sync byte of MPEG transport packets recurs, at the very beginning or after a time code."""
    for length, first in ((188, 0), (192, 4), (204, 0), (192, 0)):
        places = head[first : first + 5 * length : length]
        if len(places) >= 3 and places.count(0x47) == len(places):
            return True
    return False


def _is_text(head: bytes) -> bool:
    """Whether the bytes are those of a text: no control characters but white space."""
    return not any(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head)
