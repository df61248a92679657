"""How a command runs: a fresh bash each time, with folder and exported variables carried over in a file.

No shell lives on between calls, so none can hang, die or be confused; `~/.bashrc` is never read. The script comes
by standard input, not by argument: `pkill -f` cannot match its own wrapper, and length and quoting do not matter.
Each call leaves a line in a ledger, so that a repeat after a worker's death is recognised and not run again.
"""

import hashlib
import shlex
from dataclasses import dataclass

from workflow.core.errors import ToolError
from workflow.sandboxes.base import BackgroundProcess, ExecResult, Sandbox
from workflow.tools.base import ToolContext
from workflow.tools.output import PRIVATE_FOLDER

SHELL_FOLDER = f"{PRIVATE_FOLDER}/shell"
MAX_OUTPUT_BYTES = 5_000_000
LAST_BYTES = 8_192
"""More than what a call leaves behind: its key, how it ended, and a path."""

ENVIRONMENT: dict[str, str] = {
    "CI": "1",
    "DEBIAN_FRONTEND": "noninteractive",
    "GIT_EDITOR": "true",
    "GIT_PAGER": "cat",
    "GIT_TERMINAL_PROMPT": "0",
    "LESS": "-R",
    "MANPAGER": "cat",
    "NO_COLOR": "1",
    "PAGER": "cat",
    "PIP_NO_INPUT": "1",
    "PIP_PROGRESS_BAR": "off",
    "PYTHONUNBUFFERED": "1",
    "TERM": "dumb",
    "TQDM_DISABLE": "1",
}
"""Keeps programs from waiting for keys, paging and drawing."""

# Brings back what earlier calls exported, and their folder. The text of these scripts travels in a variable, out
# of sight of `ps` and `pkill -f`.
_RESTORE = r"""unset __dt_prepare
__dt_root=$PWD __dt_dir=$PWD/.dialtone/shell __dt_cwd=$PWD __dt_lost=
if [[ -f $__dt_dir/state ]]; then
  . "$__dt_dir/state"
  cd -- "$__dt_cwd" 2>/dev/null || { cd -- "$__dt_root"; __dt_lost=1; }
  OLDPWD=${__dt_before:-$PWD}
fi
"""

# Ledger lines: `<id> start`, `<id> end <status>`; `last` tells the tool how its call ended. Names of variables go
# through a file and not through `$(…)`, which would fork.
_PREPARE = (
    r"""__dt_id=$1 __dt_keyed=$2 __dt_old=
IFS= read -r -d '' __dt_script
exec </dev/null 2>&1
[[ -d .dialtone/shell ]] || mkdir -p .dialtone/shell
[[ -f .dialtone/.gitignore ]] || printf '*\n' >.dialtone/.gitignore
declare -A __dt_base
__dt_exported() { compgen -e >"$1/names"; mapfile -t __dt_names <"$1/names"; }
__dt_exported .dialtone/shell
for __dt_n in "${__dt_names[@]}"; do __dt_base[$__dt_n]=${!__dt_n}; done
[[ -f .dialtone/shell/state ]] && IFS= read -r -d '' __dt_old <.dialtone/shell/state
"""
    + _RESTORE
    + r"""
__dt_say() { printf '%s\n%s\n%s\n%s' "$__dt_id" "$1" "$2" "$PWD" >"$__dt_dir/last"; }
if [[ $__dt_keyed ]]; then
  __dt_calls=
  [[ -f $__dt_dir/calls ]] && IFS= read -r -d '' __dt_calls <"$__dt_dir/calls"
  case $'\n'$__dt_calls in
    *$'\n'"$__dt_id end "*)
      __dt_rest=${__dt_calls##*"$__dt_id end "}
      __dt_say repeated "${__dt_rest%%$'\n'*}"; exit "${__dt_rest%%$'\n'*}" ;;
    *$'\n'"$__dt_id start"*) __dt_say interrupted 1; exit 1 ;;
  esac
  if (( ${#__dt_calls} > 40000 )); then printf '%s' "${__dt_calls: -20000}" >"$__dt_dir/calls"; fi
  printf '%s start\n' "$__dt_id" >>"$__dt_dir/calls"
fi
unset __dt_calls __dt_n
__dt_end() {
  __dt_status=${__dt_status:-$1}
  [[ ${__dt_ended:-} ]] && return
  set +euxC  # what the script set for itself
  unset -f printf mapfile compgen
  __dt_ended=1 __dt_new=
  [[ -d $__dt_dir ]] || mkdir -p "$__dt_dir"  # `git clean -x` takes it away
  __dt_exported "$__dt_dir"
  for __dt_n in "${__dt_names[@]}"; do
    case $__dt_n in PWD|OLDPWD|SHLVL|_|UID|EUID|PPID|SHELLOPTS|BASHOPTS|__dt_*) continue ;; esac
    [[ ${__dt_base[$__dt_n]+x} && ${__dt_base[$__dt_n]} == "${!__dt_n}" ]] && continue
    printf -v __dt_line 'export %s=%q\n' "$__dt_n" "${!__dt_n}"; __dt_new+=$__dt_line
  done
  for __dt_n in "${!__dt_base[@]}"; do
    [[ -v $__dt_n ]] || __dt_new+="unset $__dt_n"$'\n'
  done
  printf -v __dt_line '__dt_cwd=%q __dt_before=%q\n' "$PWD" "${OLDPWD:-}"; __dt_new+=$__dt_line
  [[ $__dt_new == "$__dt_old" && -f $__dt_dir/state ]] || printf '%s' "$__dt_new" >"$__dt_dir/state"
  [[ $__dt_keyed ]] && printf '%s end %s\n' "$__dt_id" "$__dt_status" >>"$__dt_dir/calls"
  __dt_say "${__dt_lost:+lost}" "$__dt_status"
}
trap '{ __dt_end $?; } 2>/dev/null' EXIT
"""
)
# One line, so that the line numbers in error messages are those of the script.
_RUN = 'eval "$__dt_prepare"; set --; eval "$__dt_script"; { __dt_end $?; } 2>/dev/null; exit "$__dt_status"'


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    result: ExecResult
    outcome: str = ""
    """`repeated` (ran before, only its status is known), `interrupted` (was cut short before, not run again),
    `lost` (the folder of the last call is gone), `unsaved` (replaced or killed: folder and variables as before)."""
    cwd: str = ""
    """Absolute, inside the sandbox; empty when unknown."""


def call_hash(context: ToolContext) -> str:
    """The call's idempotency key as 20 safe characters."""
    return hashlib.sha256(context.effect_key.encode()).hexdigest()[:20]


async def run_script(context: ToolContext, script: str, *, timeout_s: float, keyed: bool) -> Ended:
    """Runs `script` in the thread's shell state. keyed: a repeat of the same call does not run again."""
    call = call_hash(context)
    result = await context.sandbox.exec(
        ["bash", "--noprofile", "--norc", "-c", _RUN, "bash", call, "keyed" if keyed else ""],
        env={**ENVIRONMENT, "__dt_prepare": _PREPARE},
        stdin=f"{script}\n".encode(),
        timeout_s=timeout_s,
        max_output=MAX_OUTPUT_BYTES,
        on_output=context.emit_output,
    )
    return await _ended(context.sandbox, call, result)


async def _ended(sandbox: Sandbox, call: str, result: ExecResult) -> Ended:
    try:
        last = (await sandbox.read(f"{SHELL_FOLDER}/last", limit=LAST_BYTES)).decode("utf-8", errors="surrogateescape")
    except ToolError:
        return Ended(result, "unsaved")
    known, outcome, _, cwd = (*last.split("\n", 3), "", "", "")[:4]
    return Ended(result, outcome, cwd) if known == call else Ended(result, "unsaved")


async def start_script(context: ToolContext, script: str) -> BackgroundProcess:
    """Starts `script` in the background, in the folder and with the variables of the thread's shell.

    A repeat of the same call gives the process that it started before, if that still runs.
    """
    sandbox, path = context.sandbox, f"{SHELL_FOLDER}/jobs/{call_hash(context)}"
    try:
        earlier = await sandbox.process(int(await sandbox.read(f"{path}.pid")))
        if earlier.exit_code is None:
            return earlier
    except (ToolError, ValueError):
        pass  # not started before, or gone with its sandbox
    await sandbox.write(f"{path}.sh", f"{script}\n".encode())
    process = await sandbox.start(
        f'eval "$__dt_prepare"; exec </dev/null 2>&1; . {shlex.quote(f"{sandbox.info.workdir}/{path}.sh")}',
        env={**ENVIRONMENT, "__dt_prepare": _RESTORE},
    )
    await sandbox.write(f"{path}.pid", str(process.pid).encode())
    return process
