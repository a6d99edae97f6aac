"""What a file says about its own origin. Claims are shown beside the verdict and never change the probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from asr_runtime.contract import Verdict

__all__ = ["Claim", "ClaimSource", "Origin", "contradictions"]

ClaimSource = Literal["c2pa", "iptc", "png", "xmp", "exif", "file"]
"""The place of a claim in the file. c2pa: Content Credentials; iptc: IPTC's `DigitalSourceType` in XMP; png: text
chunks of a PNG; xmp and exif: other fields of XMP and EXIF; file: the file could not be read."""
Origin = Literal["generated", "edited", "camera", "other"]
"""generated: by a model; edited: a model changed parts; camera: captured; other: nothing of these."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that a file says about itself.

    Attributes:
        source: its place in the file.
        says: the origin of the picture that it claims.
        text: the claim in words, one line.
        signed: of Content Credentials: the signature fits the file; None: not applicable.
        trusted: of Content Credentials: the signer is on the list of trust anchors that was given.
        signer: of Content Credentials: who signed, by the certificate.
        actions: of Content Credentials: what was done, as `c2pa.created`.
    """

    source: ClaimSource
    says: Origin
    text: str
    signed: bool | None = None
    trusted: bool | None = None
    signer: str | None = None
    actions: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the claim."""
        data: dict[str, Any] = {"source": self.source, "says": self.says, "text": self.text}
        if self.signed is not None:
            data |= {"signed": self.signed, "trusted": bool(self.trusted), "signer": self.signer}
        return {**data, "actions": list(self.actions)} if self.actions else data

    @classmethod
    def from_dict(cls, data: Any) -> Claim:
        """Read what `to_dict` wrote. Raises `ValueError` if it is something else."""
        try:
            source, says, text = data["source"], data["says"], data["text"]
            flags = data.get("signed"), data.get("trusted")
            signer, actions = data.get("signer"), tuple(data.get("actions", ()))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a claim: {error!r}") from None
        texts = (text, *actions, *(() if signer is None else (signer,)))
        is_sound = source in get_args(ClaimSource) and says in get_args(Origin)
        if not (is_sound and all(isinstance(t, str) for t in texts) and all(f in (None, True, False) for f in flags)):
            raise ValueError("not a claim")
        return cls(source, says, text, *flags, signer, actions)


def contradictions(claims: Sequence[Claim], verdict: Verdict) -> list[str]:
    """Return one sentence for each contradiction between claims, and between claims and the verdict."""
    camera = [claim for claim in claims if claim.says == "camera"]
    generated = [claim for claim in claims if claim.says == "generated"]
    sentences = []
    if camera and verdict == "ai":
        signed = any(claim.signed for claim in camera)
        who = "Signed Content Credentials say" if signed else "The file says"
        sentences.append(f"{who} that a camera took it, but the picture looks AI-generated.")
    if generated and verdict == "real":
        sentences.append("The file says that it was generated, but the picture looks real.")
    if camera and generated:
        sentences.append("The file contradicts itself: one claim says generated, another says taken by a camera.")
    return sentences
