"""Who may call: keys, tokens, sessions, tickets, and what each of them must not open."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import SecretStr

from gateway.app import create_app
from gateway.keyring import KeyRing
from gateway.tokens import RemoteKeys, TokenVerifier
from tests.gateway.playing import Worker
from tests.gateway.reading import Reader
from tests.gateway.serving import Gateway, make_settings
from workflow.core.config import AuthSettings, Settings
from workflow.core.errors import ConfigError, Unauthenticated, Unavailable

SECRET = "0123456789abcdef0123456789abcdef"
JWT = {
    "jwt_algorithms": ("HS256", "RS256"),
    "jwt_secret": SecretStr(SECRET),
    "jwt_issuer": "https://issuer.test",
    "jwt_audience": "dialtone",
}
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    good = {"iss": "https://issuer.test", "aud": "dialtone", "sub": "alice", "iat": now, "exp": now + 600}
    return {
        name: value for name, value in (good | {"tenant": "acme", "scope": "read write"} | changes).items() if value
    }


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    auth = JWT | {"mode": "on", "jwt_public_key": PEM, "recheck_s": 0.2}
    return make_settings(redis_url, tmp_path, gateway={"heartbeat_s": 0.2}, auth=auth)


@pytest.fixture
def keys(settings: Settings) -> KeyRing:
    return KeyRing(Path(settings.data_dir) / "keys.json")


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False, timeout=10) as client:
        yield client


def make_key(keys: KeyRing, *, tenant: str = "acme", scopes: str = "read write") -> dict[str, str]:
    """A header that carries a new key."""
    words = frozenset(scopes.split())
    return {"Authorization": f"Bearer {keys.new(tenant=tenant, user='u', scopes=words)}"}  # type: ignore[arg-type]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_without_a_credential_nothing_but_health_and_docs_is_answered(http: httpx.AsyncClient) -> None:
    for path in ("/api/agent", "/api/agent/x", "/api/agent/x/stream", "/agent/event-stream?flowUuid=x", "/api/session"):
        answer = await http.get(path)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), path
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert (await http.get("/health")).status_code == 200
    assert (await http.get("/events/schema.json")).status_code == 200


async def test_key_opens_until_it_is_revoked(http: httpx.AsyncClient, keys: KeyRing) -> None:
    header = make_key(keys)
    assert (await http.get("/api/agent", headers=header)).status_code == 200
    assert (await http.get("/api/agent", headers={"X-API-Key": header["Authorization"][7:]})).status_code == 200
    wrong = header["Authorization"][:-1] + ("a" if header["Authorization"][-1] != "a" else "b")
    assert (await http.get("/api/agent", headers={"Authorization": wrong})).status_code == 401
    keys.revoke(keys.records()[0].id)
    await until_refused(http, header)


async def until_refused(http: httpx.AsyncClient, header: dict[str, str]) -> None:
    """Gateways look at the keys file once a second."""
    async with asyncio.timeout(5):
        while (await http.get("/api/agent", headers=header)).status_code != 401:
            pass


def test_keys_file_holds_no_key_and_nobody_else_may_read_it(keys: KeyRing) -> None:
    text = keys.new(tenant="acme", user="u", scopes=frozenset({"read"}))
    assert text.rpartition("_")[2] not in keys.path.read_text()
    assert keys.path.stat().st_mode & 0o077 == 0


async def test_scopes_are_asked_for(http: httpx.AsyncClient, keys: KeyRing) -> None:
    reader = make_key(keys, scopes="read")
    answer = await http.post("/api/agent/initiate", headers=reader)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert (await http.get("/api/agent", headers=reader)).status_code == 200
    writer = make_key(keys, scopes="write")
    assert (await http.get("/api/agent", headers=writer)).status_code == 403


async def test_token_of_the_issuer_opens(http: httpx.AsyncClient) -> None:
    for token in (jwt.encode(claims(), SECRET), jwt.encode(claims(), RSA, "RS256")):
        who = (await http.get("/api/session", headers=bearer(token))).json()
        assert who == {"tenant": "acme", "user": "alice", "scopes": ["read", "write"]}


async def test_claims_of_other_names_are_mapped(redis_url: str, tmp_path: Path) -> None:
    named = {"claim_tenant": "org", "claim_user": "email", "claim_scopes": "roles"}
    settings = make_settings(redis_url, tmp_path, auth=JWT | named | {"mode": "on", "jwt_public_key": PEM})
    async with (
        Gateway(settings) as gateway,
        httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http,
    ):
        token = jwt.encode(claims(org="acme2", email="a@acme.test", roles=["read", "billing"]), SECRET)
        who = (await http.get("/api/session", headers=bearer(token))).json()
        assert who == {"tenant": "acme2", "user": "a@acme.test", "scopes": ["read"]}
        assert (await http.post("/api/agent/initiate", headers=bearer(token))).status_code == 403
        assert (await http.get("/api/agent", headers=bearer(jwt.encode(claims(), SECRET)))).status_code == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": None},
        {"iat": None},
        {"sub": None},
        {"aud": None},
        {"iss": None},
        {"tenant": None},
        {"exp": int(time.time()) - 60},
        {"exp": int(time.time()) + 999_999},
        {"exp": int(time.time()) * 1000},
        {"iat": int(time.time()) + 600},
        {"aud": "another"},
        {"iss": "https://evil.test"},
        {"tenant": "a}b"},
        {"tenant": ["acme"]},
    ],
)
async def test_token_with_wrong_claims_is_refused(http: httpx.AsyncClient, changes: dict[str, Any]) -> None:
    token = jwt.encode(claims(**changes), SECRET)
    answer = await http.get("/api/agent", headers=bearer(token))
    assert answer.status_code == 401, answer.text


async def test_forged_tokens_are_refused(http: httpx.AsyncClient) -> None:
    forged = [
        jwt.encode(claims(), "", "none"),
        jwt.encode(claims(), "another-secret-another-secret-another"),
        jwt.encode(claims(), rsa.generate_private_key(public_exponent=65537, key_size=2048), "RS256"),
        jwt.encode(claims(), SECRET * 2, "HS512"),
        jwt.encode(claims(), SECRET, headers={"typ": "refresh+jwt"}),
        jwt.encode(claims(), SECRET, headers={"typ": "id_token"}),
        # the public key used as a shared secret
        _hs256_with_public_key(),
        "not.a.token",
        "x",
    ]
    for token in forged:
        assert (await http.get("/api/agent", headers=bearer(token))).status_code == 401, token


async def test_token_of_another_kind_than_the_configured_key_is_refused() -> None:
    settings = AuthSettings(
        jwt_algorithms=("RS256", "ES256"), jwt_public_key=PEM, jwt_issuer="https://issuer.test", jwt_audience="dialtone"
    )
    with pytest.raises(Unauthenticated):
        await TokenVerifier(settings).caller(jwt.encode(claims(), ec.generate_private_key(ec.SECP256R1()), "ES256"))


def _hs256_with_public_key() -> str:
    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    signed = part(b'{"alg":"HS256","typ":"JWT"}') + "." + part(json.dumps(claims()).encode())
    return signed + "." + part(hmac.new(PEM.encode(), signed.encode(), hashlib.sha256).digest())


@pytest.mark.parametrize(
    "changes",
    [
        {"jwt_secret": SecretStr("short")},
        {"jwt_secret": None},
        {"jwt_issuer": ""},
        {"jwt_audience": ""},
        {"jwt_algorithms": ("none",)},
        {"jwt_algorithms": ("RS256",), "jwt_public_key": ""},
        {"jwt_algorithms": ("RS256",), "jwt_public_key": "", "jwks_url": "http://issuer.test/keys"},
    ],
)
async def test_settings_that_would_let_anybody_in_stop_the_start(
    redis_url: str, tmp_path: Path, changes: dict[str, Any]
) -> None:
    auth = JWT | {"mode": "on", "jwt_public_key": PEM} | changes
    with pytest.raises(ConfigError, match="auth"):
        create_app(make_settings(redis_url, tmp_path, auth=auth))


async def test_keys_of_the_issuer_are_fetched_once_and_unknown_ones_refused(redis_url: str, tmp_path: Path) -> None:
    served: dict[str, Any] = {"keys": []}
    fetched = 0

    async def jwks(_: web.Request) -> web.Response:
        nonlocal fetched
        fetched += 1
        return web.json_response(served)

    old, new = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    app = web.Application()
    app.router.add_get("/jwks", jwks)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    auth = JWT | {"mode": "on", "jwt_algorithms": ("ES256",), "jwks_url": f"http://127.0.0.1:{port}/jwks"}
    served["keys"] = [_jwk(old, "old")]
    async with (
        Gateway(make_settings(redis_url, tmp_path, auth=auth)) as gateway,
        httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http,
    ):

        async def ask(key: ec.EllipticCurvePrivateKey, key_id: str) -> int:
            token = jwt.encode(claims(), key, "ES256", headers={"kid": key_id})
            return (await http.get("/api/agent", headers=bearer(token))).status_code

        assert await ask(old, "old") == 200
        assert await ask(old, "old") == 200
        assert await ask(new, "old") == 401
        assert await ask(new, "unknown") == 401
        assert fetched == 1
    await runner.cleanup()


async def test_new_keys_of_the_issuer_are_fetched_when_a_token_names_one() -> None:
    served: dict[str, Any] = {}

    async def jwks(_: web.Request) -> web.Response:
        return web.json_response(served)

    app = web.Application()
    app.router.add_get("/jwks", jwks)
    async with TestServer(app) as server:
        now = 1000.0
        remote = RemoteKeys(str(server.make_url("/jwks")), clock=lambda: now)
        old, new = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        served["keys"] = [_jwk(old, "old")]
        assert (await remote.find("old")).key_id == "old"
        served["keys"] = [_jwk(new, "new")]
        with pytest.raises(Unauthenticated):  # strangers' tokens do not make us ask the issuer again and again
            await remote.find("new")
        now += 11
        assert (await remote.find("new")).key_id == "new"
        with pytest.raises(Unauthenticated):
            await remote.find("old")
        await remote.close()


async def test_an_issuer_that_is_away_is_asked_now_and_then_and_delays_nobody() -> None:
    served: dict[str, Any] = {}
    asked = 0

    async def jwks(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response(served) if served else web.Response(status=503)

    app = web.Application()
    app.router.add_get("/jwks", jwks)
    async with TestServer(app) as server:
        now = 1000.0
        remote = RemoteKeys(str(server.make_url("/jwks")), clock=lambda: now)
        for _ in range(3):
            with pytest.raises(Unavailable):
                await remote.find("one")
        assert asked == 1
        now, served["keys"] = now + 11, [_jwk(ec.generate_private_key(ec.SECP256R1()), "one")]
        assert (await remote.find("one")).key_id == "one"
        now, served = now + 601, {}
        for _ in range(3):
            assert (await remote.find("one")).key_id == "one"
            with pytest.raises(Unauthenticated):
                await remote.find("another")
        assert asked == 3
        await remote.close()


def _jwk(key: ec.EllipticCurvePrivateKey, key_id: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
    return made | {"kid": key_id, "alg": "ES256", "use": "sig"}


async def test_ticket_opens_one_stream_of_one_thread_once(
    gateway: Gateway, http: httpx.AsyncClient, keys: KeyRing, worker: Worker
) -> None:
    header = make_key(keys)
    thread, other = [(await http.post("/api/agent/initiate", headers=header)).json()["thread_id"] for _ in range(2)]

    async def ticket() -> str:
        text: str = (await http.post(f"/api/agent/{thread}/ticket", headers=header)).json()["ticket"]
        return text

    first = await ticket()
    async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream?ticket={first}") as reader:
        assert reader.status == 200
    assert (await http.get(f"/api/agent/{thread}/stream", params={"ticket": first})).status_code == 401
    elsewhere = await ticket()
    assert (await http.get(f"/api/agent/{other}/stream", params={"ticket": elsewhere})).status_code == 401
    assert (await http.get(f"/api/agent/{thread}/stream", params={"ticket": elsewhere})).status_code == 401
    unfit = await ticket()
    assert (await http.get(f"/api/agent/{thread}", params={"ticket": unfit})).status_code == 401
    assert (
        await http.get(f"/api/agent/{thread}/stream", params={"key": header["Authorization"][7:]})
    ).status_code == 401


async def test_session_cookie_works_from_our_pages_only(
    gateway: Gateway, http: httpx.AsyncClient, keys: KeyRing
) -> None:
    key = make_key(keys)["Authorization"][7:]
    assert (await http.post("/api/session", json={"key": "dt_wrong"})).status_code == 401
    foreign = {"Origin": "https://evil.test"}
    assert (await http.post("/api/session", json={"key": key}, headers=foreign)).status_code == 403
    answer = await http.post("/api/session", json={"key": key}, headers={"Origin": gateway.url})
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert (await http.get("/api/session")).json()["tenant"] == "acme"
    thread = (await http.post("/api/agent/initiate", headers={"Origin": gateway.url})).json()["thread_id"]
    assert (await http.post("/api/agent/initiate", headers=foreign)).status_code == 403
    assert (await http.get(f"/api/agent/{thread}/stream", headers=foreign)).status_code == 403
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        assert (await http.get("/api/agent", headers={"Sec-Fetch-Site": site})).status_code == status, site
    sent = {"Cookie": f"dialtone_session={http.cookies['dialtone_session']}"}
    async with await Reader.open(f"{gateway.url}/api/agent/{thread}/stream", headers=sent) as reader:
        assert reader.status == 200
        assert (await http.delete("/api/session", headers={"Origin": gateway.url})).status_code == 204
        message = await reader.until_event("error")
        assert json.loads(message.data)["code"] == "unauthenticated"
    assert (await http.get("/api/agent", headers=sent)).status_code == 401


async def test_open_stream_ends_when_its_key_is_revoked_or_its_thread_is_gone(
    gateway: Gateway, http: httpx.AsyncClient, keys: KeyRing
) -> None:
    header = make_key(keys)
    keeper = make_key(keys)
    thread = (await http.post("/api/agent/initiate", headers=header)).json()["thread_id"]
    url = f"{gateway.url}/api/agent/{thread}/stream"
    async with await Reader.open(url, headers=header) as reader, await Reader.open(url, headers=keeper) as other:
        keys.revoke(keys.records()[0].id)
        refused = json.loads((await reader.until_event("error")).data)
        assert (refused["status"], refused["code"]) == (401, "unauthenticated")
        await reader.until_end()
        assert (await http.delete(f"/api/agent/{thread}", headers=keeper)).status_code == 204
        gone = json.loads((await other.until_event("error")).data)
        assert (gone["status"], gone["code"]) == (404, "not_found")


async def test_without_checks_only_names_of_this_machine_and_our_own_pages_are_served(
    redis_url: str, tmp_path: Path
) -> None:
    async with (
        Gateway(make_settings(redis_url, tmp_path)) as gateway,
        httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http,
    ):
        assert (await http.get("/api/agent")).status_code == 200
        assert (await http.get("/api/agent", headers={"Host": "localhost:8080"})).status_code == 200
        rebound = await http.get("/api/agent", headers={"Host": "attacker.test"})
        assert (rebound.status_code, rebound.json()["code"]) == (403, "forbidden")
        foreign = await http.post("/api/agent/initiate", headers={"Origin": "https://evil.test"})
        assert foreign.status_code == 403
        for client, status in (("127.0.0.1", 200), ("203.0.113.9", 403)):  # as a proxy on this machine says
            passed_on = await http.get("/api/agent", headers={"X-Forwarded-For": client})
            assert passed_on.status_code == status


async def test_pages_of_configured_origins_may_call_and_others_may_not(redis_url: str, tmp_path: Path) -> None:
    settings = make_settings(redis_url, tmp_path, gateway={"cors_origins": ("https://app.test",)})
    async with (
        Gateway(settings) as gateway,
        httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http,
    ):
        ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type, x-api-key"}
        good = await http.options("/api/agent/initiate", headers=ask | {"Origin": "https://app.test"})
        assert good.status_code == 200
        assert good.headers["access-control-allow-origin"] == "https://app.test"
        bad = await http.options("/api/agent/initiate", headers=ask | {"Origin": "https://evil.test"})
        assert "access-control-allow-origin" not in bad.headers
        answer = await http.get("/health", headers={"Origin": "https://evil.test"})
        assert "access-control-allow-origin" not in answer.headers


async def test_star_origin_never_comes_with_credentials(redis_url: str, tmp_path: Path) -> None:
    settings = make_settings(redis_url, tmp_path, gateway={"cors_origins": ("*",)})
    async with (
        Gateway(settings) as gateway,
        httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http,
    ):
        answer = await http.get("/health", headers={"Origin": "https://evil.test", "Cookie": "a=b"})
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers
