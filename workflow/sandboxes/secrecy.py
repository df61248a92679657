"""Keeps keys and tokens out of what services say: they like to echo them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

REMOVED = "[secret removed]"
LONGEST = 600
"""Characters of a vendor's message; some send whole pages."""
SHORTEST = 8
"""Characters of a credential that is looked for: shorter ones also stand in answers by chance."""
_TOKENS = re.compile(r"(?i)\b(bearer\s+|x-api-key['\"]?[:=]\s*['\"]?|x-access-token['\"]?[:=]\s*['\"]?)[^\s'\",;]+")


@dataclass(frozen=True)
class Scrubber:
    """Removes the secrets it knows, and what looks like a credential in a header."""

    secrets: tuple[str, ...]

    def __init__(self, secrets: Iterable[str]) -> None:
        # Longest first, so that no secret leaves a piece of a longer one behind.
        object.__setattr__(self, "secrets", tuple(sorted({s for s in secrets if s}, key=len, reverse=True)))

    def plus(self, more: Iterable[str]) -> "Scrubber":
        return Scrubber([*self.secrets, *more])

    def __call__(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, REMOVED)
        text = _TOKENS.sub(lambda match: match[1] + REMOVED, text)
        return text if len(text) <= LONGEST else text[:LONGEST] + "…"

    def cause(self, error: Exception) -> Exception | None:
        """What an explained error may name as its cause: nothing when a traceback of it would tell a secret."""
        seen: BaseException | None = error
        while seen is not None:
            if any(secret in f"{seen} {seen!r}" for secret in self.secrets):
                return None
            seen = seen.__cause__ or seen.__context__
        return error


class Mask:
    """Puts asterisks for a credential in an answer that comes in pieces; the length stays as it is."""

    def __init__(self, credential: str) -> None:
        """credential: the value of an Authorization header; what follows its scheme is hidden, unless that is short."""
        secret = credential.rpartition(" ")[2].encode("latin-1")
        self._secret = secret if len(secret) >= SHORTEST else b""
        self.rest = b""
        """The end of what came so far, if the credential may go on with it."""

    def hide(self, piece: bytes) -> bytes:
        """What may be shown of `piece` and the rest before it."""
        secret = self._secret
        if not secret:
            return piece
        text = (self.rest + piece).replace(secret, b"*" * len(secret))
        ends = len(text) - next(size for size in range(len(secret) - 1, -1, -1) if text.endswith(secret[:size]))
        self.rest = text[ends:]
        return text[:ends]
