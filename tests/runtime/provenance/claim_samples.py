"""Files with claims, made by the tools themselves: c2pa signs, Pillow writes chunks and tags as the interfaces do."""

from __future__ import annotations

import datetime
import io
import json
from functools import cache
from typing import Any

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image
from PIL.PngImagePlugin import PngInfo

IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
A1111 = (
    "a lighthouse at dusk\nNegative prompt: blurry\n"
    "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x48, Model: v1-5-pruned"
)
COMFY = {"3": {"class_type": "KSampler", "inputs": {"seed": 1}}, "4": {"class_type": "CheckpointLoaderSimple"}}


@cache
def certificates() -> tuple[bytes, bytes, bytes]:
    """A chain for signing, its key, and the root certificate, as PEM."""
    keys = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = _certificate("Test Root", "Test Root", keys[0], keys[0], authority=True)
    leaf = _certificate("Camera 1", "Test Root", keys[1], keys[0], authority=False)
    pem = serialization.Encoding.PEM
    private = keys[1].private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return leaf.public_bytes(pem) + root.public_bytes(pem), private, root.public_bytes(pem)


def _certificate(
    name: str, issuer: str, key: ec.EllipticCurvePrivateKey, by: ec.EllipticCurvePrivateKey, *, authority: bool
) -> x509.Certificate:
    def full(common: str) -> x509.Name:
        organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test Camera Works")
        return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, common)])

    now = datetime.datetime.now(datetime.UTC)
    usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(full(name))
        .issuer_name(full(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not authority,
                key_cert_sign=authority,
                crl_sign=authority,
                encipher_only=False,
                decipher_only=False,
                **usage,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    )
    if not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return builder.sign(by, hashes.SHA256())


def signed(data: bytes, mime: str, source_type: str, remote: str | None = None) -> bytes:
    """Sign a file that was created with a digital source type; `remote`: the manifest lies at this URL instead."""
    chain, key, _ = certificates()
    action = {"action": "c2pa.created", "digitalSourceType": IPTC + source_type}
    manifest = {
        "claim_generator_info": [{"name": "Test Camera", "version": "2.1"}],
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [action]}}],
    }
    info = c2pa.C2paSignerInfo(alg=b"es256", sign_cert=chain, private_key=key, ta_url=None)
    made = io.BytesIO()
    with c2pa.Signer.from_info(info) as signer, c2pa.Builder(manifest) as builder:
        if remote is not None:
            builder.set_no_embed()
            builder.set_remote_url(remote)
        builder.sign(signer, mime, io.BytesIO(data), made)
    return made.getvalue()


def png(image: Image.Image, **texts: str) -> bytes:
    """A PNG with text chunks."""
    chunks = PngInfo()
    for key, text in texts.items():
        chunks.add_text(key, text)
    return _saved(image, "PNG", pnginfo=chunks)


def novelai(image: Image.Image) -> bytes:
    return png(image, Software="NovelAI", Source="NovelAI Diffusion V3", Comment=json.dumps({"steps": 28}))


def jpeg(image: Image.Image, exif: dict[int, str] | None = None, xmp: str | None = None, comment: str = "") -> bytes:
    """A JPEG with EXIF tags, an XMP packet, and a user comment as AUTOMATIC1111 writes it."""
    tags = Image.Exif()
    for tag, value in (exif or {}).items():
        tags[tag] = value
    if comment:
        tags.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + comment.encode("utf-16-be")
    return _saved(image, "JPEG", exif=tags, **({} if xmp is None else {"xmp": xmp.encode()}))


def source_type_xmp(source_type: str) -> str:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        f'Iptc4xmpExt:DigitalSourceType="{IPTC}{source_type}"/></rdf:RDF></x:xmpmeta>'
    )


def tool_xmp(tool: str) -> str:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/"><xmp:CreatorTool>{tool}</xmp:CreatorTool>'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    )


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    made = io.BytesIO()
    image.save(made, form, **options)
    return made.getvalue()
