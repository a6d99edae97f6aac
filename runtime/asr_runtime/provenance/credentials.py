"""Content Credentials (C2PA): who signed the file, whether the signature fits, and which edits it claims."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

import c2pa

from asr_runtime.claims import Claim, Origin
from asr_runtime.provenance.origins import origin_of, source_type_name

__all__ = ["read_credentials"]

# Nothing is fetched: neither manifests that lie elsewhere nor the state of certificates.
_OFFLINE = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
_NO_MANIFEST = ("ManifestNotFound", "NotSupported", "nsupported type", "could not be parsed")  # the file is no picture
_MOST_ACTIONS = 10
_STRONGEST_FIRST: tuple[Origin, ...] = ("generated", "edited", "camera")


def read_credentials(file: IO[bytes], mime: str, trust_anchors: str | None) -> list[Claim]:
    """Read the active manifest of a file.

    Args:
        file: at its beginning.
        mime: media type of the file.
        trust_anchors: certificates of the trusted signers, PEM; None: no signer is trusted.

    Returns:
        One claim; none where the file has no manifest. A manifest that cannot be read is a claim that says so.
    """
    settings = _OFFLINE if trust_anchors is None else {**_OFFLINE, "trust": {"trust_anchors": trust_anchors}}
    try:
        with c2pa.Context(c2pa.Settings.from_dict(settings)) as context:
            reader = c2pa.Reader.try_create(mime, file, context=context)
            if reader is None:
                return []
            with reader:
                report = json.loads(reader.json())
                return [_claim(report)]
    except c2pa.C2paError as error:
        reason = " ".join(str(error).split())
        if any(words in reason for words in _NO_MANIFEST):
            return []
        if reason.startswith("RemoteManifest"):
            return [Claim("c2pa", "other", "A manifest lies elsewhere on the network; it was not fetched.", False)]
        return [Claim("c2pa", "other", f"A manifest is there that cannot be read ({reason[:200]}).", False)]


def _claim(report: Mapping[str, Any]) -> Claim:
    manifest = report["manifests"][report["active_manifest"]]
    signature = manifest.get("signature_info") or {}
    signer = ", ".join(str(signature[key]) for key in ("issuer", "common_name") if signature.get(key)) or "unknown"
    state = report.get("validation_state", "Invalid")
    actions = [action for action in _actions(manifest) if isinstance(action, Mapping)]
    types = [str(a["digitalSourceType"]) for a in actions if a.get("digitalSourceType")]
    origins = [origin_of(kind) for kind in types]
    says: Origin = next((o for o in _STRONGEST_FIRST if o in origins), "other")
    names = tuple(dict.fromkeys(str(a.get("action", "unknown")) for a in actions))[:_MOST_ACTIONS]
    generators = manifest.get("claim_generator_info") or [{}]
    tool = " ".join(str(generators[0].get(key, "")) for key in ("name", "version")).strip()
    how = {
        "Trusted": f"Signed by {signer}, who is trusted",
        "Valid": f"Signed by {signer}, who is not on a list of trusted signers",
    }.get(state, f"The signature does not fit the file ({_failure(report)}); signed in the name of {signer}")
    parts = [how, f"tool {tool}" if tool else "", f"actions {', '.join(names)}" if names else ""]
    parts.append(f"source {', '.join(dict.fromkeys(map(source_type_name, types)))}" if types else "")
    is_valid = state in ("Trusted", "Valid")
    return Claim(
        "c2pa",
        says if is_valid else "other",
        "; ".join(filter(None, parts)),
        is_valid,
        state == "Trusted",
        signer,
        names,
    )


def _actions(manifest: Mapping[str, Any]) -> list[Any]:
    for assertion in manifest.get("assertions", []):
        if str(assertion.get("label", "")).startswith("c2pa.actions"):
            return list(assertion.get("data", {}).get("actions", []))
    return []


def _failure(report: Mapping[str, Any]) -> str:
    failures = report.get("validation_results", {}).get("activeManifest", {}).get("failure", [])
    codes = [f.get("code", "") for f in failures if f.get("code") != "signingCredential.untrusted"]
    return str(codes[0]) if codes else "invalid"
