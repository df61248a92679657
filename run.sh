#!/usr/bin/env bash
# Everything one does with Dialtone, from a clean clone on: finds Python and uv, installs what uv.lock names, runs.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
venv=${UV_PROJECT_ENVIRONMENT:-$root/.venv}
export UV_PROJECT_ENVIRONMENT=$venv UV_COMPILE_BYTECODE=1
# What this machine trusts, an inspecting proxy of a company too; uv by itself knows the public authorities only.
[[ ! -r /etc/ssl/certs/ca-certificates.crt ]] || export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true}

usage() {
  cat <<'HELP'
./run.sh                        start everything and stay: Redis, gateway, workers; prints the console's address
./run.sh demo ["<task>"]        start everything, run one task, show every step, stop everything
./run.sh gateway | modem        one part alone, on an external Redis (REDIS_URL)
./run.sh config print|check|explain KEY    what is configured, where each value comes from
./run.sh keys …                 make, list and revoke API keys
./run.sh export RUN             write a run that has ended into one file; docs/cassettes.md
./run.sh replay FILE            play it again, offline or against another model, prompt or configuration; compare
./run.sh sandbox check          which sandbox tier holds on this machine, and why
./run.sh sandbox vm             run its tests in a virtual machine with control groups of version 2
./run.sh test [pytest options]  run the tests; --install-system-packages first adds Debian packages they can use
./run.sh check                  format, lint, types, imports and tests, as CI does
./run.sh chaos | bench …        break things on purpose; measure
./run.sh help
HELP
}

say() { printf '%s\n' "$*" >&2; }
die() { say "run.sh: $1"; exit "${2:-1}"; }

# A command that ends when this script does, whatever ended it. Without this a killed run.sh leaves uv working.
leashed() {
  local status=0 leash=()
  if command -v setpriv >/dev/null && setpriv --pdeathsig KILL true 2>/dev/null; then leash=(setpriv --pdeathsig KILL); fi
  ${leash[@]+"${leash[@]}"} "$@" &
  local pid=$!
  trap 'kill "$pid" 2>/dev/null; exit 143' TERM INT HUP
  wait "$pid" || status=$?
  trap - TERM INT HUP
  return "$status"
}

find_python() { # a Python that the project supports; empty when there is none
  local name
  for name in python3 python3.13 python3.12 python3.11; do
    if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
}

find_uv() {
  local any
  if command -v uv >/dev/null && uv --version >/dev/null 2>&1; then command -v uv; return; fi
  if [[ ! -x $root/var/uv/uv ]]; then
    any=$(find_python)
    any=${any:-$(command -v python3 || true)}
    [[ -n $any ]] || die "needs Python 3.11 or newer; on Debian and Ubuntu: apt-get install python3"
    say "Fetching uv, the installer …"
    leashed "$any" "$root/scripts/get_uv.py" "$root/var/uv" >&2 || exit 1
  fi
  printf '%s\n' "$root/var/uv/uv"
}

# install run|dev: makes the environment match uv.lock; nothing to do when it already does (0.02 s).
install() {
  local want stamp=$venv/.dialtone-installed uv python options=()
  want=$(cat "$root/uv.lock" "$root/pyproject.toml" | cksum)
  if [[ -x $venv/bin/python && -r $stamp ]]; then
    case $(<"$stamp") in
      "dev $want") return ;;
      "run $want") [[ $1 == run ]] && return ;;
    esac
  fi
  [[ -w $root ]] || die "cannot write to $root; own the folder, or set UV_PROJECT_ENVIRONMENT to one of yours"
  uv=$(find_uv) || exit 1
  [[ $1 == dev ]] || options+=(--no-dev)
  # Only for a new environment: uv makes an existing one anew when it is given another path of the same Python.
  if [[ ! -x $venv/bin/python ]] && python=$(find_python) && [[ -n $python ]]; then options+=(--python "$python"); fi
  [[ -t 2 ]] || options+=(--quiet)
  say "Installing what uv.lock names into $venv …"
  leashed "$uv" sync --project "$root" --frozen --inexact ${options[@]+"${options[@]}"} >&2 ||
    die "uv could not install the dependencies (see above); it needs a network or a filled cache the first time"
  printf '%s %s\n' "$1" "$want" >"$stamp"
}

# Debian packages that tests use when they are there: a real sandbox, ripgrep, another Redis, a browser.
missing_packages() {
  local pair
  for pair in bubblewrap:bwrap ripgrep:rg redis-server:redis-server chromium:chromium; do
    command -v "${pair#*:}" >/dev/null || printf '%s ' "${pair%%:*}"
  done
}

# Installs them as root in CI or when told to; otherwise only says what is missing.
prepare_system() {
  local missing package
  missing=$(missing_packages)
  [[ -n $missing ]] || return 0
  if [[ $EUID -eq 0 && ( ${CI:-} == true || $1 == yes ) ]] && command -v apt-get >/dev/null; then
    leashed apt-get update -qq >&2 || true
    for package in $missing; do
      DEBIAN_FRONTEND=noninteractive leashed apt-get install -y -qq --no-install-recommends "$package" >/dev/null ||
        say "run.sh: could not install $package; the tests that need it are skipped"
    done
  elif [[ $1 == yes ]]; then
    die "--install-system-packages needs root and apt-get; as root: apt-get install -y $missing"
  else
    say "Some tests are skipped for want of Debian packages; as root: apt-get install -y $missing"
  fi
}

module() { # module NAME [arguments]: becomes `python -m NAME`
  local name=$1 file=$root/${1//.//}
  shift
  [[ $name == pytest || -e $file.py || -e $file/__main__.py ]] || die "$name is not in this checkout"
  exec "$venv/bin/python" -m "$name" "$@"
}

absolute() { # a path of the caller's, before we change folder
  case $1 in "" | /*) printf '%s' "$1" ;; *) printf '%s/%s' "$PWD" "$1" ;; esac
}

main() {
  local command=${1:-up} system=no here
  [[ $# -eq 0 ]] || shift
  [[ -z ${DIALTONE_CONFIG:-} ]] || DIALTONE_CONFIG=$(absolute "$DIALTONE_CONFIG")
  [[ -z ${DIALTONE_SECRETS_FILE:-} ]] || DIALTONE_SECRETS_FILE=$(absolute "$DIALTONE_SECRETS_FILE")
  here=$PWD
  cd "$root"
  case $command in
    up | demo | gateway | modem) install run; module scripts.stack "$command" "$@" ;;
    config) install run; module scripts.config "$@" ;;
    keys) install run; module scripts.keys "$@" ;;
    export | replay) # in the caller's folder, whose files they name; nothing is imported from there
      install run; cd "$here"; export PYTHONPATH=$root PYTHONSAFEPATH=1; module "scripts.$command" "$@" ;;
    sandbox)
      case ${1:-} in
        check) install run; module scripts.sandbox_check "${@:2}" ;;
        vm) install dev; module scripts.sandbox_vm "${@:2}" ;;
        *) die "did you mean: ./run.sh sandbox check, or: ./run.sh sandbox vm" 2 ;;
      esac ;;
    chaos | bench) install dev; module "scripts.$command" "$@" ;;
    test)
      if [[ ${1:-} == --install-system-packages ]]; then system=yes; shift; fi
      install dev; prepare_system "$system"; module pytest -n 3 --dist loadfile "$@" ;;
    check) install dev; exec "$root/scripts/check" "$@" ;;
    help | -h | --help) usage ;;
    *) say "run.sh: no command $command"; usage >&2; exit 2 ;;
  esac
}

main "$@"
