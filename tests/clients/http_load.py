"""HTTP/1.1 requests over --connections standing connections, GET and POST in turn, each as soon as the answer to the
one before is there and a pause of --pause milliseconds, drawn at random between the two numbers, is over.

Prints a JSON line per request, {"t": start in Unix seconds, "ms": duration, "ok": bool, "error": text,
"endpoint": who answered, "peer": whom it saw, "request_id": what an engine added}, in order of their ends. A connection that ends after
an answer is opened again; one that ends instead of an answer is a failure. Ends on SIGTERM.
"""

import argparse
import asyncio
import json
import random
import signal
import sys
import time

BODY = b"x" * 100


class Connection:
    def __init__(self, host, port):
        self.host, self.port = host, port
        self.reader = self.writer = None

    def close(self):
        if self.writer:
            self.writer.close()
        self.reader = self.writer = None

    async def ask(self, method, path):
        """Status and body."""
        if self.writer is None or self.reader.at_eof():
            self.close()
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        head = f"{method} {path} HTTP/1.1\r\nhost: {self.host}:{self.port}\r\n"
        if method == "POST":
            self.writer.write(f"{head}content-length: {len(BODY)}\r\n\r\n".encode() + BODY)
        else:
            self.writer.write(f"{head}\r\n".encode())
        answer = await self.reader.readuntil(b"\r\n\r\n")
        lines = answer.decode().lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection") == "close":
            self.close()
        return lines[0].split(" ")[1], body


async def work(options, host, port, stop):
    connection, number = Connection(host, port), 0
    low, _, high = options.pause.partition("-")
    while not stop.is_set():
        method = ("GET", "POST")[number % 2]
        number += 1
        line = {"t": time.time(), "ms": 0.0, "ok": True, "error": "", "endpoint": "", "peer": "", "request_id": ""}
        begun = time.monotonic()
        try:
            status, body = await asyncio.wait_for(connection.ask(method, options.path), options.timeout)
            if status == "200":
                answer = json.loads(body)
                line["endpoint"] = answer["endpoint"]
                line["peer"] = answer["peer"]
                line["request_id"] = answer["headers"].get("x-request-id", "")
            else:
                line["ok"], line["error"] = False, f"{method}: {status} {body.decode(errors='replace')}"
        except (OSError, EOFError, ValueError, asyncio.TimeoutError) as error:
            line["ok"], line["error"] = False, f"{method}: {type(error).__name__}: {error}"
            connection.close()
        line["ms"] = round((time.monotonic() - begun) * 1000, 3)
        if options.per_connection and number % options.per_connection == 0:
            connection.close()
        sys.stdout.write(json.dumps(line) + "\n")
        await asyncio.sleep(random.uniform(float(low), float(high or low)) / 1000)
    connection.close()


async def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--target", required=True, help="HOST:PORT")
    arguments.add_argument("--path", default="/x")
    arguments.add_argument("--connections", type=int, default=4)
    arguments.add_argument("--per-connection", type=int, default=0, help="requests; 0 for as many as it lasts")
    arguments.add_argument("--pause", default="2", help="milliseconds, or LOW-HIGH")
    arguments.add_argument("--timeout", type=float, default=2.0, help="seconds")
    options = arguments.parse_args()
    host, _, port = options.target.rpartition(":")

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await asyncio.gather(*(work(options, host.strip("[]"), int(port), stop) for _ in range(options.connections)))


asyncio.run(main())
