"""Which hosts a sandbox may talk to, and the checks on a host's name that come before anything is looked up."""

import re
from dataclasses import dataclass

from workflow.core.config import SandboxSettings

REGISTRIES = (
    *("pypi.org", "files.pythonhosted.org"),
    *("registry.npmjs.org", "registry.yarnpkg.com"),
    *("crates.io", "index.crates.io", "static.crates.io"),
    *("proxy.golang.org", "sum.golang.org"),
    *("rubygems.org", "index.rubygems.org"),
    *("repo.maven.apache.org", "repo1.maven.org", "plugins.gradle.org"),
    *("repo.packagist.org", "packagist.org"),
    *("deb.debian.org", "security.debian.org", "archive.ubuntu.com", "security.ubuntu.com"),
)
"""The preset `allow_registries`: where the usual package managers fetch from. Uploading there is also possible."""
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class Policy:
    """The hosts that are allowed. A name allows itself, `*.name` all names below it."""

    hosts: tuple[str, ...] = ()
    everything: bool = False
    """Any public host: `network = "open"`."""

    @classmethod
    def of(cls, settings: SandboxSettings) -> "Policy":
        registries = REGISTRIES if settings.allow_registries else ()
        return cls((*settings.allow_hosts, *registries), everything=settings.network == "open")

    def refusal(self, host: str) -> str:
        """Why `host` (in lower case) may not be reached; empty when it may, as far as its name can tell."""
        if len(host) > 253 or not _HOST.fullmatch(host):
            return "not a full host name"
        if _NUMBER.fullmatch(host.rpartition(".")[2]):
            return "an address, not a host name"
        if self.everything or any(self._matches(host, allowed) for allowed in self.hosts):
            return ""
        return "not on the list of allowed hosts"

    def _matches(self, host: str, allowed: str) -> bool:
        return host.endswith(allowed[1:]) if allowed.startswith("*.") else host == allowed
