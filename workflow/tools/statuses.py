"""What an exit status means, and what to do about the usual troubles of a command without a terminal."""

import re
import shlex

# Programs whose status 1 is an answer.
_ANSWERS = {
    "grep": "nothing matched",
    "egrep": "nothing matched",
    "fgrep": "nothing matched",
    "rg": "nothing matched",
    "zgrep": "nothing matched",
    "git grep": "nothing matched",
    "pgrep": "no such process",
    "pkill": "no such process",
    "diff": "the files differ",
    "cmp": "the files differ",
    "git diff": "the files differ",
    "test": "the condition is false",
    "[": "the condition is false",
    "[[": "the condition is false",
    "which": "not found",
    "command": "not found",
}
# Steps before them whose own status is hardly ever 1.
_QUIET = frozenset({":", "cd", "echo", "export", "printf", "pushd", "true"})
_MAY_STOP_EARLIER = re.compile(r"\bexit\b|\bset\s+-\w*e|\bpipefail\b")
_FAILED_CD = re.compile(r": (?:cd|pushd): ")
_HEREDOC = re.compile(r"(?<!<)<<-?[ \t]*(['\"]?)([A-Za-z_]\w*)\1")
_PROMPT = re.compile(
    r"password|passphrase|\[y(?:es)?/n(?:o)?\]|\(y(?:es)?/n(?:o)?\)|continue\?|EOF when reading|EOFError|not a tty"
    r"|not a terminal|no tty|press (?:enter|any key)|Aborted!?\s*$",
    re.IGNORECASE,
)
_LEFT_BEHIND = re.compile(r"(?<![&>|<\d])&(?![&>\d])|\bnohup\b|\bsetsid\b|\bdisown\b")
_MEANINGS = {
    126: "the file is there but cannot be executed: check its mode (chmod +x) and first line",
    127: "a command was not found: check the spelling, or what is installed with command -v",
    137: "it was killed (SIGKILL), often for want of memory",
    139: "it crashed (segmentation fault)",
    143: "it was ended (SIGTERM)",
}


def is_harmless(command: str, exit_code: int, output: str) -> bool:
    """True if a status of 1 can only be an answer and not a failure (grep, diff, test, ...)."""
    return exit_code == 1 and not _FAILED_CD.search(output) and bool(_answer(command))


def hints(command: str, exit_code: int, output: str, *, timed_out: bool) -> list[str]:
    """Sentences that help the model to go on; empty for a plain success."""
    found: list[str] = []
    if is_harmless(command, exit_code, output):
        found.append(f"Status 1 of this command means that {_answer(command)}; it is not a failure.")
    elif exit_code in _MEANINGS and not timed_out and "unbound variable" not in output:  # which is 127 too
        found.append(f"Status {exit_code}: {_MEANINGS[exit_code]}.")
    if exit_code != 0 and _PROMPT.search(output[-2000:]):
        found.append(
            "It seems to have asked for input, and there is none. Give the answer by a flag (-y, --yes, "
            "--non-interactive), by a variable, or by a pipe (printf 'y\\n' | …)."
        )
    plain = _unquoted(command)
    if _LEFT_BEHIND.search(plain) and not re.search(r"\bwait\b", plain):
        found.append("What the command left in the background was ended with it; use background=true for that.")
    return found


def _answer(command: str) -> str:
    """What status 1 says if only programs can have given it whose status 1 is an answer, else empty."""
    if _MAY_STOP_EARLIER.search(command):
        return ""
    lines = [line for line in _unquoted(command).split("\n") if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        return ""
    # In `cd x && grep y` the last one answers, in `grep -q y && echo yes` the first.
    chain = re.split(r"&&", re.split(r";|\|\|", lines[-1])[-1])
    found = ""
    for part in chain:
        words = part.split("|")[-1].lstrip("! ").split()
        words = words[next((i for i, w in enumerate(words) if "=" not in w), len(words)) :]
        name = words[0].rsplit("/", 1)[-1] if words else ""
        said = _ANSWERS.get(" ".join((name, *words[1:2]))) or _ANSWERS.get(name, "")
        if not said and name not in _QUIET:
            return ""
        found = said or found
    return found


def _unquoted(command: str) -> str:
    """`command` without here-documents and with quoted texts blanked, so that nothing in them is taken for syntax."""
    command = _without_heredocs(command)
    try:
        shlex.split(command)
    except ValueError:
        return command
    return re.sub(r"'[^']*'|\"(?:\\.|[^\"\\])*\"", "Q", command)


def _without_heredocs(command: str) -> str:
    kept: list[str] = []
    end = ""
    for line in command.split("\n"):
        if end:
            end = "" if line.strip() == end else end
            continue
        kept.append(line)
        begun = _HEREDOC.search(line)
        end = begun[2] if begun else ""
    return "\n".join(kept)
