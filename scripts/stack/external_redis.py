"""A Redis that somebody else runs: whether it can be reached, is new enough, and keeps what it is given."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from scripts.stack.embedded_redis import MIN_VERSION
from scripts.stack.supervisor import StackError
from workflow.core.config import RedisSettings
from workflow.core.config_load import masked


def check(settings: RedisSettings) -> tuple[str, list[str]]:
    """The server's version, and warnings about settings under which it may lose runs.

    Blocks for up to `timeout_s`. Raises: StackError saying what is wrong and what to do.
    """
    shown = masked(settings.url)
    advice = "check redis.url (or REDIS_URL)"
    try:
        client = _client(settings)
        info = client.info()
    except redis.AuthenticationError as exc:
        raise StackError(f"Redis at {shown} refuses the password ({exc}); set DIALTONE_REDIS__PASSWORD") from exc
    except NoPermissionError as exc:
        raise StackError(f"Redis at {shown}: this user may not run INFO ({exc}); give it +@all on its keys") from exc
    except MasterNotFoundError as exc:
        raise StackError(f"the sentinels know no master {settings.sentinel_service!r}; {advice}") from exc
    except (redis.ConnectionError, redis.TimeoutError, OSError) as exc:
        raise StackError(f"Redis at {shown} does not answer ({exc}); start it, or {advice}") from exc
    except redis.ResponseError as exc:
        raise StackError(f"Redis at {shown} answers: {exc}; {advice}") from exc
    except ValueError as exc:
        raise StackError(f"redis.url {shown!r} cannot be read ({exc}); e.g. redis://host:6379/0") from exc
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2]) < MIN_VERSION:
        need = ".".join(map(str, MIN_VERSION))
        raise StackError(f"Redis at {shown} is version {version}; {need} or newer is needed")
    return version, _warnings(info)


def _client(settings: RedisSettings) -> Any:  # redis-py's own types for sentinels are missing
    password = settings.password.get_secret_value() if settings.password else None
    url = urlsplit(settings.url)
    bounds: dict[str, Any] = {
        "socket_timeout": settings.timeout_s,
        "socket_connect_timeout": settings.timeout_s,
        "retry": Retry(NoBackoff(), 0),
    }
    if url.scheme == "sentinel":
        hosts = [host.rpartition(":")[::2] for host in url.netloc.rpartition("@")[2].split(",")]
        sentinels = [(name or port, int(port) if name else 26379) for name, port in hosts]
        sentinel = Sentinel(sentinels, sentinel_kwargs=bounds, **bounds)  # type: ignore[no-untyped-call]
        name = settings.sentinel_service
        return sentinel.master_for(name, password=url.password or password, **bounds)  # type: ignore[no-untyped-call]
    if password and not url.password and "password" not in parse_qs(url.query):
        bounds["password"] = password
    return redis.Redis.from_url(settings.url, **bounds)


def _warnings(info: dict[str, object]) -> list[str]:
    found: list[str] = []
    if info.get("cluster_enabled"):
        found.append("Redis Cluster: the queue needs a single Redis beside it; see docs/operations.md")
    if info.get("maxmemory_policy", "noeviction") != "noeviction":
        found.append(
            f"Redis evicts keys ({info['maxmemory_policy']}): runs may vanish; set maxmemory-policy noeviction"
        )
    if not info.get("aof_enabled"):
        found.append("Redis keeps no append-only file: a crash loses recent runs; set appendonly yes")
    return found
