"""A new HTTP connection every --every milliseconds, for measuring what new connections meet.

Prints a JSON line per connection, {"t": start in Unix seconds, "ms": duration, "ok": bool, "error": text,
"endpoint": who answered, "request_id": what an engine added}, in order of their ends. Ends after --seconds or on
SIGTERM.
"""

import argparse
import asyncio
import json
import signal
import sys
import time


async def get(host, port):
    """The description that derny-testd gives of the request as it arrived."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET / HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n\r\n".encode())
        answer = await reader.read(-1)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(head.decode(errors="replace").split("\r\n")[0] or "closed without an answer")
    return json.loads(body)


async def probe(options, host, port):
    line = {"t": time.time(), "ms": 0.0, "ok": True, "error": "", "endpoint": "", "request_id": ""}
    begun = time.monotonic()
    try:
        answer = await asyncio.wait_for(get(host, port), options.timeout)
        line["endpoint"] = answer["endpoint"]
        line["request_id"] = answer["headers"].get("x-request-id", "")
    except (OSError, ValueError, asyncio.TimeoutError) as error:
        line["ok"], line["error"] = False, f"{type(error).__name__}: {error}"
    line["ms"] = round((time.monotonic() - begun) * 1000, 3)
    sys.stdout.write(json.dumps(line) + "\n")


async def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--target", required=True, help="HOST:PORT")
    arguments.add_argument("--seconds", type=float, default=1e9)
    arguments.add_argument("--every", type=float, default=20, help="milliseconds")
    arguments.add_argument("--timeout", type=float, default=0.4, help="seconds")
    options = arguments.parse_args()
    host, _, port = options.target.rpartition(":")

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    begun, number, running = time.monotonic(), 0, set()
    while not stop.is_set() and time.monotonic() - begun < options.seconds:
        task = asyncio.create_task(probe(options, host.strip("[]"), int(port)))
        running.add(task)
        task.add_done_callback(running.discard)
        number += 1
        await asyncio.sleep(max(0, begun + number * options.every / 1000 - time.monotonic()))
    await asyncio.gather(*running)


asyncio.run(main())
