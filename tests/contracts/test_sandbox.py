"""What every sandbox promises about commands, whoever provides it."""

import asyncio

import pytest

from workflow.core.errors import ToolError
from workflow.sandboxes.base import Sandbox


async def test_a_command_gives_its_output_and_status(sandbox: Sandbox) -> None:
    result = await sandbox.exec("echo hello")
    assert (result.exit_code, result.stdout, result.stderr) == (0, b"hello\n", b"")
    assert (await sandbox.exec("false")).exit_code == 1
    assert not result.timed_out and result.killed_by == "" and result.duration_s > 0


async def test_standard_output_and_error_stay_apart(shell: Sandbox) -> None:
    result = await shell.exec("echo out; echo err >&2; exit 7")
    assert (result.exit_code, result.stdout, result.stderr) == (7, b"out\n", b"err\n")


async def test_a_list_is_run_as_it_is_without_a_shell(sandbox: Sandbox) -> None:
    result = await sandbox.exec(["echo", "$HOME", "a  b", ";", "*"])
    assert result.stdout == b"$HOME a  b ; *\n"


async def test_standard_input_is_given_and_then_ends(sandbox: Sandbox) -> None:
    assert (await sandbox.exec("cat", stdin=b"from outside")).stdout == b"from outside"
    assert (await sandbox.exec("cat", timeout_s=5)).stdout == b""


async def test_standard_input_may_be_larger_than_a_pipe(shell: Sandbox) -> None:
    assert (await shell.exec("wc -c", stdin=bytes(3_000_000))).stdout.strip() == b"3000000"


async def test_the_environment_is_given(sandbox: Sandbox) -> None:
    assert (await sandbox.exec("printenv COLOUR", env={"COLOUR": "blue sky"})).stdout == b"blue sky\n"


async def test_a_command_runs_in_the_folder_asked_for(sandbox: Sandbox) -> None:
    await sandbox.write("deep/er/name.txt", b"here")
    assert (await sandbox.exec("cat name.txt", cwd="deep/er")).stdout == b"here"


async def test_a_folder_that_is_not_there_is_the_agents_mistake(sandbox: Sandbox) -> None:
    with pytest.raises(ToolError):
        await sandbox.exec("true", cwd="nowhere")


async def test_a_command_over_its_time_is_killed_and_says_so(sandbox: Sandbox) -> None:
    result = await sandbox.exec("sleep 60", timeout_s=0.2)
    assert (result.exit_code, result.timed_out, result.killed_by) == (124, True, "timeout")
    assert result.duration_s < 5


async def test_output_before_a_timeout_is_kept(shell: Sandbox) -> None:
    result = await shell.exec("echo early; sleep 60", timeout_s=0.5)
    assert result.stdout == b"early\n" and result.timed_out


async def test_long_output_keeps_head_and_tail_and_counts_the_middle(shell: Sandbox) -> None:
    result = await shell.exec("echo first; head -c 300000 /dev/zero; echo last", max_output=1000)
    assert len(result.stdout) == 1000
    assert result.stdout.startswith(b"first\n") and result.stdout.endswith(b"last\n")
    assert result.dropped_bytes == 300_000 + len(b"first\nlast\n") - 1000


async def test_output_is_shown_while_the_command_still_runs(shell: Sandbox) -> None:
    shown: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    async def show(stream: str, chunk: bytes) -> None:
        await shown.put((stream, chunk))

    await shell.exec("mkfifo gate")
    command = asyncio.create_task(shell.exec("echo ready; read -r line < gate; echo $line >&2", on_output=show))
    assert await asyncio.wait_for(shown.get(), 5) == ("stdout", b"ready\n")
    assert not command.done()
    await shell.exec("echo go > gate", timeout_s=5)
    await asyncio.wait_for(command, 5)
    assert await shown.get() == ("stderr", b"go\n")


async def test_a_line_of_a_megabyte_without_an_end_is_output(shell: Sandbox) -> None:
    result = await shell.exec("head -c 1000000 /dev/zero | tr '\\0' x", max_output=2_000_000)
    assert result.stdout == b"x" * 1_000_000


async def test_a_script_of_half_a_megabyte_runs(shell: Sandbox) -> None:
    script = "".join(f"x{i}=1234567890\n" for i in range(25_000)) + "echo $x24999"
    assert (await shell.exec(script)).stdout == b"1234567890\n"


async def test_an_unknown_program_is_a_result_not_an_error(shell: Sandbox) -> None:
    assert (await shell.exec(["no-such-program"])).exit_code == 127
    assert (await shell.exec("no-such-program")).exit_code == 127


async def test_a_command_that_dies_of_a_signal_reports_it_as_a_shell_does(shell: Sandbox) -> None:
    assert (await shell.exec("kill -TERM $$")).exit_code == 128 + 15


async def test_a_command_returns_when_it_ends_though_a_child_holds_its_output(shell: Sandbox) -> None:
    result = await shell.exec("sleep 60 & echo done", timeout_s=10)
    assert result.stdout == b"done\n" and not result.timed_out


async def test_nothing_that_a_command_left_behind_goes_on(shell: Sandbox) -> None:
    leave = "(setsid sleep 300 &) ; setsid -f sleep 300; nohup sleep 300 >/dev/null 2>&1 & trap '' TERM; exit 3"
    assert (await shell.exec(leave)).exit_code == 3
    assert (await shell.usage()).processes <= 1  # the sandbox's own


async def test_cancelling_a_command_kills_all_of_it(shell: Sandbox) -> None:
    started = asyncio.Event()
    command = asyncio.create_task(
        shell.exec("setsid -f sleep 300; trap '' TERM INT; echo on; sleep 300", on_output=lambda *_: started.set())
    )
    await asyncio.wait_for(started.wait(), 5)
    command.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(command, 2)
    assert (await shell.usage()).processes <= 1


async def test_commands_run_beside_each_other(sandbox: Sandbox) -> None:
    results = await asyncio.gather(*(sandbox.exec(f"echo {n}") for n in range(10)))
    assert [result.stdout for result in results] == [f"{n}\n".encode() for n in range(10)]


async def test_a_background_process_outlives_the_commands_beside_it(shell: Sandbox) -> None:
    process = await shell.start("while :; do sleep 0.05; date >> ticks; done")
    await shell.exec("until [ -s ticks ]; do sleep 0.02; done; rm ticks", timeout_s=5)
    await shell.exec("until [ -s ticks ]; do sleep 0.02; done", timeout_s=5)
    assert process.exit_code is None
    await process.kill()
    assert process.exit_code == 128 + 9


async def test_a_background_process_is_found_again_by_its_number(sandbox: Sandbox) -> None:
    process = await sandbox.start("sleep 60")
    assert (await sandbox.process(process.pid)).pid == process.pid
    await process.kill()
    with pytest.raises(ToolError) as refused:
        await sandbox.process(process.pid + 1)
    assert refused.value.kind == "no_such_process"


async def test_background_output_is_read_on_from_where_one_was(sandbox: Sandbox) -> None:
    process = await sandbox.start("echo hello")
    assert await process.wait(timeout_s=5) == 0
    first, place = await process.output()
    assert (first, place) == (b"hello\n", 6)
    assert await process.output(after=place) == (b"", 6)
    assert await process.output(after=4) == (b"o\n", 6)


async def test_a_background_process_can_be_written_to(shell: Sandbox) -> None:
    process = await shell.start("read -r line; echo got $line")
    await process.write(b"words\n")
    assert await process.wait(timeout_s=5) == 0
    assert (await process.output())[0] == b"got words\n"


async def test_waiting_for_a_background_process_is_bounded(sandbox: Sandbox) -> None:
    process = await sandbox.start("sleep 60")
    assert await process.wait(timeout_s=0.1) is None
    await process.kill()
    assert await process.wait(timeout_s=5) == 128 + 9


async def test_a_killed_background_process_takes_its_daemons_along(shell: Sandbox) -> None:
    process = await shell.start("setsid -f sleep 300; (setsid sleep 300 &); echo up; sleep 300")
    while not (await process.output())[0]:
        await process.wait(timeout_s=0.05)
    await process.kill()
    assert (await shell.usage()).processes <= 1
