"""The shell as a model sees it: state without a living shell, honest ends, bounded output."""

import asyncio
from time import monotonic

import pytest

from tests.tools.harness import Bench
from workflow.core.config import ToolSettings
from workflow.core.events import Effect
from workflow.tools.base import ToolOutput
from workflow.tools.bash import Bash, BashArgs


def output_of(result: ToolOutput) -> str:
    """What the command printed, without the notes below it."""
    return result.text.rpartition("\n\n[exit status")[0]


async def test_folder_and_exported_variables_last_from_call_to_call(bench: Bench) -> None:
    await bench("bash", command="mkdir -p a/b && cd a/b && export NAME='two words' LINES_=$'one\\ntwo'")

    result = await bench("bash", command='basename "$PWD"; echo "$NAME"; echo "$LINES_"')

    assert output_of(result) == "b\ntwo words\none\ntwo"
    assert result.data["cwd"].endswith("/a/b")


async def test_cd_goes_back_to_where_the_call_before_was(bench: Bench) -> None:
    await bench("bash", command="mkdir -p a b; cd a; cd ../b")

    assert output_of(await bench("bash", command='cd - >/dev/null; basename "$PWD"')) == "a"


async def test_a_variable_that_is_unset_stays_unset(bench: Bench) -> None:
    await bench("bash", command="export NAME=x")
    await bench("bash", command="unset NAME")

    assert output_of(await bench("bash", command='echo "[${NAME-gone}]"')) == "[gone]"


async def test_shell_variables_that_are_not_exported_do_not_last(bench: Bench) -> None:
    await bench("bash", command="plain=1")

    assert output_of(await bench("bash", command='echo "[${plain-gone}]"')) == "[gone]"


@pytest.mark.parametrize(
    "setting",
    ["set -o noclobber", "readonly n=3 new=4 line=5", "export UID EUID SHELLOPTS BASHOPTS", "printf() { echo no; }"],
)
async def test_what_a_script_sets_for_itself_does_not_lose_the_state(bench: Bench, setting: str) -> None:
    await bench("bash", command="export FIRST=1")  # the state is there already
    await bench("bash", command=f"{setting}; mkdir -p sub; cd sub; export SECOND=2")

    result = await bench("bash", command='basename "$PWD"; echo "$FIRST$SECOND"')

    assert output_of(result) == "sub\n12"


@pytest.mark.parametrize(
    ("command", "is_left"),
    [
        ("sleep 5 & echo started", True),
        ("sleep 0.1 & wait; echo ended", False),
        ("cat >/dev/null <<'EOF'\nit's a & b\nEOF\necho done", False),
        ("cat >/dev/null <<EOF\na & b\nEOF\nsleep 5 &", True),
        ("echo 'a & b' && true", False),
    ],
)
async def test_only_what_is_left_in_the_background_is_warned_of(bench: Bench, command: str, is_left: bool) -> None:
    assert ("left in the background" in (await bench("bash", command=command)).text) is is_left


async def test_exit_keeps_folder_and_reports_its_status(bench: Bench) -> None:
    result = await bench("bash", command="mkdir -p sub; cd sub; exit 7")

    assert result.data["exit_code"] == 7
    assert not result.ok
    assert "exit status 7" in result.text
    assert output_of(await bench("bash", command='basename "$PWD"')) == "sub"


async def test_exec_replaces_the_shell_without_losing_the_next_call(bench: Bench) -> None:
    replaced = await bench("bash", command="exec printf replaced")

    assert output_of(replaced) == "replaced"
    assert "the shell was replaced" in replaced.text
    assert output_of(await bench("bash", command="echo alive")) == "alive"


async def test_killing_the_shell_does_not_lose_the_next_call(bench: Bench) -> None:
    killed = await bench("bash", command="kill -9 $$")

    assert killed.data["exit_code"] == 137
    assert output_of(await bench("bash", command="echo alive")) == "alive"


async def test_state_survives_the_removal_of_its_files(bench: Bench) -> None:
    await bench("bash", command="mkdir -p sub; cd sub; export NAME=x; rm -rf ../.dialtone")

    assert output_of(await bench("bash", command='basename "$PWD"; echo "$NAME"')) == "sub\nx"


async def test_a_deleted_folder_falls_back_to_the_workspace_and_says_so(bench: Bench) -> None:
    await bench("bash", command="mkdir gone; cd gone")
    await bench("bash", command="rmdir ../gone")

    result = await bench("bash", command="pwd -P >/dev/null && ls -d .dialtone")

    assert output_of(result) == ".dialtone"
    assert "no longer exists" in result.text


@pytest.mark.parametrize(
    ("script", "printed"),
    [
        ("echo one\necho two", "one\ntwo"),
        ("cat <<'END'\n$HOME `x`\nEND", "$HOME `x`"),
        ("echo a \\\n  b", "a b"),
        ("if true; then\n  echo yes\nfi", "yes"),
        ("f() { echo \"$1\"; }\nf 'x y'", "x y"),
        ("# only a comment\n", "(no output)"),
        ("echo 'a\"b'\necho \"c'd\"", "a\"b\nc'd"),
        ("printf 'ü€😀\\n'", "ü€😀"),
        ("echo trailing \\", "trailing"),
        ("set -e\nfalse || echo handled", "handled"),
    ],
    ids=lambda value: value.split("\n")[0][:20],
)
async def test_scripts_of_many_lines_run_as_written(bench: Bench, script: str, printed: str) -> None:
    assert output_of(await bench("bash", command=script)) == printed


async def test_a_script_of_120000_characters_runs(bench: Bench) -> None:
    script = "\n".join(f": {'x' * 90}" for _ in range(1300)) + "\necho done"

    assert output_of(await bench("bash", command=script)) == "done"


async def test_line_numbers_in_errors_are_those_of_the_script(bench: Bench) -> None:
    result = await bench("bash", command="true\nno_such_program_here")

    assert "line 2: no_such_program_here: command not found" in result.text
    assert "Status 127" in result.text


async def test_a_variable_that_is_not_set_is_no_command_that_is_not_found(bench: Bench) -> None:
    result = await bench("bash", command="set -u; echo $NOT_SET")

    assert "unbound variable" in result.text
    assert "a command was not found" not in result.text


async def test_a_syntax_error_is_a_failure_with_its_line(bench: Bench) -> None:
    result = await bench("bash", command="if; then")

    assert result.data["exit_code"] == 2
    assert "syntax error" in result.text


async def test_standard_input_is_empty_and_a_prompt_gets_advice(bench: Bench) -> None:
    result = await bench("bash", command="read -r -p 'Continue? [y/N] ' answer || { echo 'Continue? [y/N]'; exit 1; }")

    assert result.data["exit_code"] == 1
    assert "asked for input" in result.text


@pytest.mark.parametrize(
    ("command", "meaning"),
    [
        ("grep nothing .dialtone/.gitignore", "nothing matched"),
        ("cd . && grep nothing .dialtone/.gitignore", "nothing matched"),
        ("echo a | grep b", "nothing matched"),
        ("grep -q b .dialtone/.gitignore && echo found", "nothing matched"),
        ("LC_ALL=C grep b .dialtone/.gitignore", "nothing matched"),
        ("diff <(echo a) <(echo b)", "the files differ"),
        ("test -f none", "the condition is false"),
        ("[ 1 = 2 ]", "the condition is false"),
        ("[[ a == b ]]", "the condition is false"),
    ],
)
async def test_status_1_of_a_question_is_an_answer(bench: Bench, command: str, meaning: str) -> None:
    result = await bench("bash", command=command)

    assert result.data["exit_code"] == 1
    assert result.ok
    assert meaning in result.text


@pytest.mark.parametrize(
    "command",
    [
        "false",
        "echo grep; false",
        "grep x none-such",
        "ls none-such | grep -c '' ; exit 1",
        "false && git diff",
        "grep -q '' .dialtone/.gitignore && false",
        "cd none-such && grep x y",
        "set -e\nfalse\ngrep x y",
        "false || exit 1\ngrep x y",
        "set -o pipefail; false | grep -c x | test 1 = 1",
    ],
)
async def test_other_failures_are_failures(bench: Bench, command: str) -> None:
    assert not (await bench("bash", command=command)).ok


async def test_a_time_out_says_so_and_the_next_call_works(bench: Bench) -> None:
    started = monotonic()

    result = await bench("bash", command="echo early; sleep 30", timeout_s=0.5)

    assert monotonic() - started < 10
    assert result.data["timed_out"]
    assert not result.ok
    assert "Timed out after 0.5 s" in result.text
    assert output_of(await bench("bash", command="echo alive")) == "alive"


async def test_a_time_out_kills_the_whole_tree(shell: Bench) -> None:
    await shell("bash", command="(while :; do date > beat; sleep 0.05; done) & sleep 30", timeout_s=0.5)

    before = await shell.sandbox.stat("beat")
    await shell("bash", command="sleep 0.4")
    after = await shell.sandbox.stat("beat")

    assert before is not None
    assert after is not None
    assert before.mtime_ns == after.mtime_ns


async def test_the_longest_time_is_the_configured_one(bench: Bench) -> None:
    bench.settings = ToolSettings(bash_max_timeout_s=0.3)

    result = await bench("bash", command="sleep 20", timeout_s=1000)

    assert result.data["timed_out"]


async def test_long_output_keeps_head_and_tail_and_the_whole_in_a_file(bench: Bench) -> None:
    bench.settings = ToolSettings(output_chars=2000)

    result = await bench("bash", command="echo FIRST; seq 1 5000; echo LAST")

    path = result.data["output_file"]
    assert result.text.startswith("FIRST\n1\n")
    assert "\nLAST\n" in result.text
    assert "left out" in result.text
    assert path in result.text
    assert len(result.text) < 3500
    whole = (await bench.sandbox.read(path)).decode()
    assert whole == "\n".join(["FIRST", *map(str, range(1, 5001)), "LAST"])
    found = await bench("grep", pattern="^2500$", path=path, output_mode="content")
    assert "2500" in found.text


async def test_one_line_of_a_million_characters_is_cut_not_crashed_on(bench: Bench) -> None:
    result = await bench("bash", command="head -c 1000000 /dev/zero | tr '\\0' x")

    assert 20_000 < len(result.text) < 40_000


async def test_colours_and_progress_bars_are_made_readable(bench: Bench) -> None:
    script = r"printf '\033[31mred\033[0m\n 10%%\r 50%%\r100%%\n\033[?2004l\033]0;title\007ok\n'"

    assert output_of(await bench("bash", command=script)) == "red\n100%\nok"


async def test_binary_output_is_named_not_shown(bench: Bench) -> None:
    result = await bench("bash", command="head -c 3000 /dev/urandom")

    assert "binary output, 3,000 bytes" in result.text


async def test_stderr_comes_in_its_place(bench: Bench) -> None:
    assert output_of(await bench("bash", command="echo a; echo b >&2; echo c")) == "a\nb\nc"


async def test_output_is_shown_live(shell: Bench) -> None:
    seen = asyncio.Event()

    class Watching(list[tuple[str, bytes]]):
        def append(self, item: tuple[str, bytes]) -> None:
            if b"early" in item[1]:
                seen.set()

    shell.live = Watching()
    running = asyncio.create_task(shell("bash", command="echo early; sleep 20", timeout_s=20))
    try:
        async with asyncio.timeout(5):
            await seen.wait()
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_child_that_holds_the_output_open_does_not_hold_the_call(shell: Bench) -> None:
    started = monotonic()

    result = await shell("bash", command="sleep 20 & echo done")

    assert monotonic() - started < 5
    assert output_of(result) == "done"
    assert "background=true" in result.text


async def test_programs_find_no_pager_and_no_colour(bench: Bench) -> None:
    result = await bench("bash", command='echo "$PAGER $GIT_PAGER $NO_COLOR $TERM"')

    assert output_of(result) == "cat cat 1 dumb"


async def test_the_command_is_not_in_any_argument_list(shell: Bench) -> None:
    # `pkill -f` of a word in the command must not end the shell that runs it.
    result = await shell("bash", command="pkill -f un_usual_word; echo survived")

    assert output_of(result) == "survived"


async def test_a_nul_character_is_refused_with_a_reason(bench: Bench) -> None:
    error = await bench.fails("bash", command="echo a\0b")

    assert error.kind == "bad_command"


async def test_a_repeated_call_is_recognised_and_not_run_again(bench: Bench) -> None:
    await bench("bash", call_id="call_repeated", command="echo x >> log; exit 3")

    again = await bench("bash", call_id="call_repeated", command="echo x >> log; exit 3")

    assert again.data["outcome"] == "repeated"
    assert again.data["exit_code"] == 3
    assert (await bench.sandbox.read("log")).decode() == "x\n"


async def test_a_call_that_was_cut_short_is_not_run_again(bench: Bench) -> None:
    await bench("bash", call_id="call_cut_short", command="echo x >> log; sleep 20", timeout_s=0.3)

    again = await bench("bash", call_id="call_cut_short", command="echo x >> log; sleep 20")

    assert again.data["outcome"] == "interrupted"
    assert not again.ok
    assert "cut short" in again.text


@pytest.mark.parametrize(
    ("network", "effect"), [("off", Effect.KEYED), ("allowlist", Effect.UNSAFE), ("open", Effect.UNSAFE)]
)
def test_the_effect_class_follows_the_network(network: str, effect: Effect) -> None:
    assert Bash(network=network).effect_of(BashArgs(command="true")) is effect


async def test_with_a_network_a_repeat_that_was_approved_runs_again(bench: Bench) -> None:
    from workflow.tools.build import build_registry

    bench.registry, _ = build_registry(bench.settings, network="open", environ={})
    await bench("bash", call_id="call_repeated", command="echo x >> log")
    await bench("bash", call_id="call_repeated", command="echo x >> log")

    assert (await bench.sandbox.read("log")).decode() == "x\nx\n"


async def test_a_background_job_is_started_read_and_ended(shell: Bench) -> None:
    await shell("bash", command="mkdir sub; cd sub; export WORD=hello")
    started = await shell("bash", command='basename "$PWD"; echo "$WORD"; sleep 30', background=True)
    job = started.data["job"]

    assert started.data["running"]
    assert started.text.startswith("sub\nhello\n")
    assert f"bash_output(job={job})" in started.text
    assert (await shell("bash_output", job=job)).text.startswith("(no new output)")
    assert (await shell("bash_output", job=job, after=0)).text.startswith("sub\nhello")
    await shell("bash_kill", job=job)
    ended = await shell("bash_output", job=job, wait_s=5)
    assert not ended.data["running"]


async def test_a_background_command_that_fails_at_once_is_seen_at_once(shell: Bench) -> None:
    result = await shell("bash", command="echo no such option >&2; exit 2", background=True)

    assert not result.ok
    assert "no such option" in result.text
    assert "ended at once with exit status 2" in result.text


async def test_waiting_for_a_job_gives_its_end(shell: Bench) -> None:
    started = await shell("bash", command="sleep 1.5; echo finished", background=True)

    result = await shell("bash_output", job=started.data["job"], wait_s=20)

    assert result.text.startswith("finished")
    assert "ended with exit status 0" in result.text


async def test_a_repeated_start_gives_the_job_that_runs(shell: Bench) -> None:
    first = await shell("bash", call_id="call_start_1", command="sleep 30", background=True)

    again = await shell("bash", call_id="call_start_1", command="sleep 30", background=True)

    assert again.data["job"] == first.data["job"]


async def test_an_unknown_job_names_the_known_ones(shell: Bench) -> None:
    started = await shell("bash", command="sleep 30", background=True)

    error = await shell.fails("bash_output", job=999_999)

    assert error.kind == "no_such_process"
    assert str(started.data["job"]) in error.message


async def test_a_call_costs_little_more_than_its_command(shell: Bench) -> None:
    await shell("bash", command="true")
    started = monotonic()

    for _ in range(20):
        await shell("bash", command="true")

    # Measured 0.2 s for twenty on an idle machine; the bound leaves room for a busy one.
    assert monotonic() - started < 4
