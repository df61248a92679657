"""Parts in place of gateway and worker, started in milliseconds: `python stand_ins.py gateway|worker|dies …`."""

import asyncio
import json
import os
import signal
import subprocess
import sys


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


async def gateway(status: str = "200") -> None:
    """Answers every request with `status`; ends at SIGTERM."""
    body = json.dumps({"status": "ok", "version": "9.9", "model": "scripted (no key)", "sandbox": "local/T1"})

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.0 {status} x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    host, port = os.environ["DIALTONE_GATEWAY__HOST"], int(os.environ["DIALTONE_GATEWAY__PORT"])
    server = await asyncio.start_server(answer, host, port)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    say("gateway listens")
    await stop.wait()
    server.close()
    say("gateway stops")


async def worker(*words: str) -> None:
    """Waits for SIGTERM, with `stubborn` for SIGKILL; with `child` it has one, with `talk` it says what follows."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, (lambda: None) if "stubborn" in words else stop.set)
    child = subprocess.Popen(["sleep", "600"]) if "child" in words else None
    if "talk" in words:
        say(" ".join(words[words.index("talk") + 1 :]))
    say("worker waits")
    await stop.wait()
    say("worker stops")
    if child is not None:
        child.kill()
        child.wait()


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    if kind == "dies":
        say("no such luck")
        sys.exit(3)
    asyncio.run(gateway(*rest) if kind == "gateway" else worker(*rest))
