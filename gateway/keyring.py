"""API keys: `dt_<id>_<secret>`, kept as hashes in a 0600 file that `scripts/keys.py` writes and gateways re-read.

The secret has 256 random bits, so a plain SHA-256 of it cannot be searched; the id only finds the record.
"""

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import tempfile
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from workflow.core.errors import ConfigError, NotFound
from workflow.core.ids import TenantId, UserId
from workflow.core.records import Caller, Scope

KEY = re.compile(r"dt_([a-z0-9]{10})_([A-Za-z0-9_-]{43})")
_LOOK_EVERY_S = 1.0

_log = logging.getLogger(__name__)


class KeyRecord(BaseModel):
    """What the file holds of one key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    sha256: str
    tenant: TenantId
    user: UserId
    scopes: frozenset[Scope] = frozenset[Scope]({"read", "write"})
    name: str = ""
    created_at: int = Field(description="milliseconds since 1970")


_RECORDS = TypeAdapter(tuple[KeyRecord, ...])


class KeyRing:
    """The keys of one file; a missing file holds none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records: dict[str, KeyRecord] = {}
        self._seen: tuple[int, int, int] | None = None
        self._looked_at = float("-inf")

    def records(self) -> list[KeyRecord]:
        """All keys, oldest first."""
        self._look()
        return sorted(self._records.values(), key=lambda record: record.created_at)

    def caller(self, text: str) -> Caller | None:
        """Whom the key stands for; None if it is none of ours."""
        match = KEY.fullmatch(text)
        if match is None:
            return None
        self._look()
        if match[1] not in self._records:
            self._look(at_once=True)  # it may have been made a moment ago
        record = self._records.get(match[1])
        # An unknown id is compared too: the answer takes as long as for a wrong secret.
        expected = "0" * 64 if record is None else record.sha256
        if not hmac.compare_digest(_sha256(text), expected) or record is None:
            return None
        return _caller(record)

    def still(self, key_id: str) -> Caller | None:
        """Whom the key with this id stands for now; None once it is revoked."""
        self._look()
        record = self._records.get(key_id)
        return None if record is None else _caller(record)

    def new(self, *, tenant: str, user: str, scopes: frozenset[Scope], name: str = "") -> str:
        """Makes a key and gives back its text, which is kept nowhere."""
        key_id = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(10))
        text = f"dt_{key_id}_{secrets.token_urlsafe(32)}"
        record = KeyRecord(
            id=key_id, sha256=_sha256(text), tenant=TenantId(tenant), user=UserId(user), scopes=scopes, name=name,
            created_at=int(time.time() * 1000),
        )  # fmt: skip
        self._write([*self.records(), record])
        return text

    def revoke(self, key_id: str) -> KeyRecord:
        """Forgets a key; open streams of it end at their next check. Raises: NotFound."""
        records = self.records()
        gone = next((record for record in records if record.id == key_id), None)
        if gone is None:
            raise NotFound(f"no key {key_id} in {self.path}")
        self._write([record for record in records if record is not gone])
        return gone

    def _look(self, *, at_once: bool = False) -> None:
        """Reads the file again when it changed; looks at most once a second, unless `at_once`."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_EVERY_S and not at_once:
            return
        self._looked_at = now
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            self._records, self._seen = {}, None
            return
        seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        if seen == self._seen:
            return
        try:
            self._records = self._read()
        except ConfigError as error:
            if self._seen is None:
                raise
            _log.error("keeping the keys read before: %s", error)
        self._seen = seen

    def _read(self) -> dict[str, KeyRecord]:
        try:
            records = _RECORDS.validate_json(self.path.read_bytes())
        except ValidationError as error:
            raise ConfigError(f"{self.path} holds no keys that can be read: {error.errors()[0]['msg']}") from error
        return {record.id: record for record in records}

    def _write(self, records: list[KeyRecord]) -> None:
        """Replaces the file in one step: a gateway that reads meanwhile sees the old or the new one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps([record.model_dump(mode="json") for record in records], indent=2) + "\n"
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".keys-")  # made with mode 0600
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(self.path)
        self._looked_at = float("-inf")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _caller(record: KeyRecord) -> Caller:
    return Caller(tenant=record.tenant, user=record.user, scopes=record.scopes, credential=f"key:{record.id}")
