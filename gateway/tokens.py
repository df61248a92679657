"""JSON Web Tokens of an external issuer, and which tenant, user and scopes they stand for.

PyJWT alone accepts tokens without `exp`, of any issuer, of any type and signed with a six-byte key (measured);
everything it leaves open is closed here, at the start where possible.
"""

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import jwt
from jwt import PyJWK, PyJWKSet

from workflow.core.config import AuthSettings
from workflow.core.errors import ConfigError, Unauthenticated, Unavailable
from workflow.core.ids import TenantId, UserId
from workflow.core.records import Caller

_log = logging.getLogger(__name__)

REQUIRED = ("exp", "iat", "sub", "aud", "iss")
MIN_SECRET_BYTES = 32
LEEWAY_S = 30
_KNOWN_SCOPES = frozenset({"read", "write", "operator"})
_NAME = re.compile(r"[A-Za-z0-9_.@:|+/=-]{1,128}")
_SHARED = frozenset({"HS256", "HS384", "HS512"})
_PUBLIC = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})
_KEYS_TTL_S, _KEYS_MIN_AGE_S, _FETCH_S = 600.0, 10.0, 5.0


class TokenVerifier:
    """Checks tokens against what `[auth]` says of their issuer."""

    def __init__(self, settings: AuthSettings) -> None:
        """Raises: ConfigError for anything that would let a token pass that should not."""
        algorithms = frozenset(settings.jwt_algorithms)
        if unknown := algorithms - _SHARED - _PUBLIC:
            raise ConfigError(f"auth.jwt_algorithms: {', '.join(sorted(unknown))}: not a signature that is accepted")
        for name in ("jwt_issuer", "jwt_audience"):
            if not getattr(settings, name):
                raise ConfigError(f"auth.{name}: must be set when auth.jwt_algorithms is")
        self._settings = settings
        self._shared = _shared_key(settings) if algorithms & _SHARED else None
        self._public = _public_key(settings) if algorithms & _PUBLIC else None
        self._remote = RemoteKeys(settings.jwks_url) if algorithms & _PUBLIC and settings.jwks_url else None
        self._decoder = jwt.PyJWT()

    async def caller(self, token: str) -> Caller:
        """Whom the token stands for. Raises: Unauthenticated, Unavailable when the issuer's keys cannot be had."""
        try:
            header = jwt.get_unverified_header(token)
            algorithm = str(header.get("alg", ""))
            if algorithm not in self._settings.jwt_algorithms:
                raise Unauthenticated("the token is signed in a way that is not accepted here")
            if str(header.get("typ", "JWT")).casefold() not in {kind.casefold() for kind in self._settings.jwt_types}:
                raise Unauthenticated("the token is of another type, not an access token")
            claims = self._decoder.decode(
                token,
                await self._key(algorithm, str(header.get("kid", ""))),
                algorithms=[algorithm],
                audience=self._settings.jwt_audience,
                issuer=self._settings.jwt_issuer,
                leeway=LEEWAY_S,
                options={"require": list(REQUIRED)},
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated(f"the token does not hold: {error}") from error
        return self._caller(token, claims)

    async def close(self) -> None:
        if self._remote is not None:
            await self._remote.close()

    async def _key(self, algorithm: str, key_id: str) -> Any:
        if algorithm in _SHARED:
            return self._shared
        if self._remote is not None:
            key = await self._remote.find(key_id)
            if key.algorithm_name != algorithm:
                raise Unauthenticated("the token's key is meant for another signature")
            return key.key
        return self._public

    def _caller(self, token: str, claims: dict[str, Any]) -> Caller:
        settings = self._settings
        issued, expires = float(claims["iat"]), float(claims["exp"])
        if expires - issued > settings.jwt_max_age_s or time.time() - issued > settings.jwt_max_age_s + LEEWAY_S:
            raise Unauthenticated(f"the token lives longer than {settings.jwt_max_age_s:g} s")
        tenant, user = claims.get(settings.claim_tenant), claims.get(settings.claim_user)
        for name, value in ((settings.claim_tenant, tenant), (settings.claim_user, user)):
            if not isinstance(value, str) or not _NAME.fullmatch(value):
                raise Unauthenticated(f"the token's claim `{name}` is missing or no usable name")
        granted = claims.get(settings.claim_scopes, "")
        words = granted.split() if isinstance(granted, str) else granted if isinstance(granted, list) else []
        mark = hashlib.sha256(token.encode()).hexdigest()[:12]
        return Caller(
            tenant=TenantId(str(tenant)),
            user=UserId(str(user)),
            scopes=_KNOWN_SCOPES.intersection(word for word in words if isinstance(word, str)),
            credential=f"jwt:{mark}@{int(expires)}",
        )


class RemoteKeys:
    """An issuer's public keys (JWKS), fetched when needed and kept for ten minutes."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        if not url.startswith(("https://", "http://127.0.0.1", "http://localhost", "http://[::1]")):
            raise ConfigError("auth.jwks_url: must be https, or http on this machine")
        self._url = url
        self._clock = clock
        self._keys: dict[str, PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._lock = asyncio.Lock()
        self._client: aiohttp.ClientSession | None = None

    async def find(self, key_id: str) -> PyJWK:
        """The key named `key_id`. Raises: Unauthenticated if the issuer has none, Unavailable if it is away."""
        if not self._holds(key_id):
            async with self._lock:
                if not self._holds(key_id) and self._clock() - self._tried_at > _KEYS_MIN_AGE_S:
                    self._tried_at = self._clock()
                    await self._fetch()
        if not self._keys:
            raise Unavailable("the token issuer's keys cannot be fetched", retry_after_s=_KEYS_MIN_AGE_S)
        key = self._keys.get(key_id)
        if key is None:
            raise Unauthenticated("the token names a key that its issuer does not have")
        return key

    def _holds(self, key_id: str) -> bool:
        return key_id in self._keys and self._clock() - self._fetched_at <= _KEYS_TTL_S

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def _fetch(self) -> None:
        self._client = self._client or aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_FETCH_S))
        try:
            async with self._client.get(self._url, allow_redirects=False) as answer:
                answer.raise_for_status()
                found = PyJWKSet.from_dict(await answer.json(content_type=None))
        except (aiohttp.ClientError, TimeoutError, ValueError, jwt.PyJWTError) as error:
            _log.warning("cannot fetch the issuer's keys, going on with the %d known: %s", len(self._keys), error)
            return
        self._keys = {key.key_id: key for key in found.keys if key.key_id}
        self._fetched_at = self._clock()


def _shared_key(settings: AuthSettings) -> bytes:
    secret = settings.jwt_secret.get_secret_value().encode() if settings.jwt_secret else b""
    if len(secret) < MIN_SECRET_BYTES:
        raise ConfigError(f"auth.jwt_secret: HS* signatures need a secret of at least {MIN_SECRET_BYTES} bytes")
    return secret


def _public_key(settings: AuthSettings) -> str | None:
    text = settings.jwt_public_key
    if not text:
        if not settings.jwks_url:
            raise ConfigError("auth: RS*, PS*, ES* and EdDSA need jwt_public_key or jwks_url")
        return None
    pem = text if "-----BEGIN" in text else Path(text).read_text()
    if "PUBLIC KEY" not in pem:
        raise ConfigError("auth.jwt_public_key: holds no PEM public key")
    return pem
