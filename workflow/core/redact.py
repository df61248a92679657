"""Takes secrets out of text that people will read: logs, error messages, printed configuration.

Two nets: shapes of well-known credentials, and the exact values this process was given. A secret shorter than
`SHORTEST` cannot be taken out by value without tearing holes into ordinary words.
"""

import json
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote

MASK = "[redacted]"
SHORTEST = 6
SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|DSN)$", re.IGNORECASE)
_SECRET_FIELD = re.compile(r"^(proxy-)?authorization$|cookie$|api_?key$|secret$|password$", re.IGNORECASE)

KEY_SHAPE = re.compile(
    r"\b(?:"
    r"sk-[A-Za-z0-9_-]{16,}"  # OpenAI, Anthropic, OpenRouter, DeepSeek
    r"|(?:gsk|xai|hf|r8|e2b|dtn|dt|whsec|tvly|pplx|nvapi)[_-][A-Za-z0-9+/=_-]{16,}"
    r"|AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_-]{20,}"  # Google
    r"|A(?:KIA|SIA)[A-Z0-9]{16}"  # AWS
    r"|gh[oprsu]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,}|glpat-[A-Za-z0-9_-]{18,}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,}"  # Slack
    r"|eyJ[A-Za-z0-9_-]{8,2000}\.[A-Za-z0-9_-]{8,8000}\.[A-Za-z0-9_-]*"  # JSON web tokens
    r")"
)
# Each pattern keeps its first group (what it is) and loses the rest (what it holds).
_LABELLED = (
    re.compile(
        r"""(\bauthorization\\?["']?\s*[:=,]\s*(?:b?\\?["'])?(?:(?:bearer|basic|token|digest)\s+)?)[^\s"',;)\]}]+""",
        re.I,
    ),
    re.compile(r"(\b(?:bearer|basic)\s+)(?=[A-Za-z0-9+/=_.~-]*[0-9+/=_.~-])[A-Za-z0-9+/=_.~-]{12,}", re.I),
    re.compile(r"""(\b(?:set-)?cookie\\?["']?\s*[:=]\s*\\?["']?)[^\r\n"']+""", re.I),
    re.compile(
        r"""(\b(?:x-)?(?:api|access|auth|private|secret)[_-]?(?:key|token)\\?["']?\s*[:=]\s*\\?["']?)[^\s"',;&)\]}]+""",
        re.I,
    ),
    re.compile(r"""(\b(?:password|passwd|client_secret)\\?["']?\s*[:=]\s*\\?["']?)[^\s"',;&)\]}]+""", re.I),
    re.compile(r"([?&](?:ticket|token|key|api_key|access_token|sig)=)[^\s&\"'#]+", re.I),
    re.compile(r"(\b[a-z][a-z0-9+.-]{0,20}://[^\s/:@]{0,100}:)[^\s/@]{1,500}(?=@)", re.I),
)


def secret_values(environ: Mapping[str, str]) -> set[str]:
    """The values of the variables whose names say that they hold a secret."""
    return {value for name, value in environ.items() if SECRET_NAME.search(name)}


class Redactor:
    """Replaces every secret it knows, and everything that looks like one, by `MASK`."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        forms: set[str] = set()
        for value in values:
            # A value may be logged as it is, inside JSON, or inside a URL.
            forms |= {
                value,
                json.dumps(value)[1:-1],
                json.dumps(value, ensure_ascii=False)[1:-1],
                quote(value, safe=""),
            }
        known = sorted((form for form in forms if len(form) >= SHORTEST), key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(MASK, text)
        text = KEY_SHAPE.sub(MASK, text)
        for pattern in _LABELLED:
            text = pattern.sub(rf"\1{MASK}", text)
        return text

    def tree(self, value: object) -> object:
        """`value` made of JSON types, with every string in it redacted and every field with a secret's name masked."""
        if isinstance(value, Mapping):
            return {
                self(str(name)): MASK
                if _SECRET_FIELD.search(str(name)) and isinstance(field, str)
                else self.tree(field)
                for name, field in value.items()
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [self.tree(item) for item in value]
        return value if value is None or isinstance(value, bool | int | float) else self(str(value))
