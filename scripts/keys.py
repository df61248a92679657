"""API keys from the command line: `./run.sh keys new|list|revoke`."""

import argparse
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from gateway.keyring import KeyRing
from workflow.core.config_load import load
from workflow.core.errors import DialtoneError
from workflow.core.records import Scope

_NAME = re.compile(r"[A-Za-z0-9_.@:|+/=-]{1,128}")
_SCOPES: dict[str, Scope] = {"read": "read", "write": "write", "operator": "operator"}


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 when it is done, 1 when it could not be, 2 for a wrong command line."""
    options = _parser().parse_args(arguments)
    try:
        settings = load().settings
        path = settings.auth.keys_file or str(Path(settings.data_dir) / "keys.json")
        ring = KeyRing(Path(path))
        if options.command == "new":
            _new(ring, options)
        elif options.command == "list":
            _list(ring)
        else:
            record = ring.revoke(options.id)
            print(f"revoked {record.id} of {record.user} in {record.tenant}; its open streams end within a minute")
    except DialtoneError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    return 0


def _new(ring: KeyRing, options: argparse.Namespace) -> None:
    scopes = frozenset(_SCOPES[word] for word in options.scopes.split(","))
    text = ring.new(tenant=options.tenant, user=options.user, scopes=scopes, name=options.name)
    sys.stderr.write(f"a new key for {options.user} in {options.tenant}; it is shown only now:\n")
    print(text)


def _list(ring: KeyRing) -> None:
    for record in ring.records():
        made = datetime.fromtimestamp(record.created_at / 1000, UTC).strftime("%Y-%m-%d %H:%M")
        print(f"{record.id}  {made}  {record.tenant}/{record.user}  {','.join(sorted(record.scopes))}  {record.name}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="keys", description="API keys of the gateway")
    commands = parser.add_subparsers(dest="command", required=True)
    new = commands.add_parser("new", help="make a key and print it")
    new.add_argument("--tenant", default="default", type=_name, help="who owns what the key makes")
    new.add_argument("--user", required=True, type=_name, help="who holds the key")
    new.add_argument("--scopes", default="read,write", type=_scopes, help="of read, write, operator")
    new.add_argument("--name", default="", help="what it is for")
    commands.add_parser("list", help="show all keys, without their secrets")
    revoke = commands.add_parser("revoke", help="forget a key")
    revoke.add_argument("id", help="the ten characters after `dt_`")
    return parser


def _name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"{text!r}: letters, digits and _.@:|+/=- only")
    return text


def _scopes(text: str) -> str:
    if unknown := set(text.split(",")) - set(_SCOPES):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
    return text


if __name__ == "__main__":
    sys.exit(main())
