"""Whatever the OpenAPI document lets a client send, no answer is a server error and all fit what it says."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dialtone import AsyncClient
from tests.line import Line, script

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    """A gateway and a worker, for files need one."""
    line = Line({"DIALTONE_LIMITS__REQUESTS_PER_MINUTE": "0", "DIALTONE_LIMITS__MAX_RUNNING_PER_TENANT": "1"})
    try:
        await asyncio.to_thread(line.start)
        yield line
    finally:
        await asyncio.to_thread(line.stop)


@pytest.mark.timeout(180)
async def test_no_request_that_the_api_describes_is_answered_with_a_server_error(line: Line, tmp_path: Path) -> None:
    # Streams of threads that it makes on its way do not end; the test below has one that does.
    await fuzz(line, tmp_path, "--max-examples", "3", "--exclude-path-regex", "stream")


@pytest.mark.timeout(180)
async def test_nor_is_any_about_a_thread_and_a_run_that_exist(line: Line, tmp_path: Path) -> None:
    async with AsyncClient(line.url) as client:
        thread_id = await client.initiate()
        run = await client.execute(thread_id, script({"text": "Done."}))
        async for _ in client.stream(thread_id, run_id=run.run_id):
            pass
        await client.put_file(thread_id, "a.txt", content=b"text")
    # A stream of a run that has ended ends by itself, wherever it starts.
    known = {
        "path.thread_id": thread_id,
        "path.run_id": run.run_id,
        "query.run_id": run.run_id,
        "query.flowUuid": thread_id,
        "query.flowInputUuid": run.run_id,
    }
    lines = ["[parameters]", *(f'"{name}" = "{value}"' for name, value in known.items())]
    (tmp_path / "schemathesis.toml").write_text("\n".join(lines))
    # The thread itself stays, for the others.
    await fuzz(line, tmp_path, "--max-examples", "5", "--exclude-name", "DELETE /api/agent/{thread_id}")


async def fuzz(line: Line, folder: Path, *options: str) -> None:
    """Runs schemathesis over the whole document. Raises: AssertionError with what it found."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{line.url}/openapi.json", "--no-color"]
    command += ["--phases", "coverage,fuzzing", "--generation-database", "none", "--mode", "all", "--checks", CHECKS]
    told = await asyncio.to_thread(
        subprocess.run, [*command, *options], capture_output=True, text=True, timeout=150, cwd=folder, check=False
    )
    assert told.returncode == 0, told.stdout[told.stdout.find("= FAILURES") :][:8000]
    assert "Traceback" not in line.logs()
