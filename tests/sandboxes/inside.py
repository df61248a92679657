"""Running Python inside a sandbox and seeing from outside what is left."""

import textwrap

from workflow.sandboxes.base import ExecResult
from workflow.sandboxes.guard import usage
from workflow.sandboxes.local_sandbox import LocalSandbox
from workflow.sandboxes.probes import interpreter


async def python(sandbox: LocalSandbox, code: str, *, timeout_s: float = 10.0) -> ExecResult:
    """Runs `code` with the interpreter that is sure to be inside."""
    command = [interpreter(), "-I", "-S", "-c", textwrap.dedent(code)]
    return await sandbox.exec(command, timeout_s=timeout_s)


async def left(sandbox: LocalSandbox) -> int:
    """How many processes there are below the sandbox's init."""
    cell = await sandbox.cell()
    return usage(cell.init_pid)[1]
