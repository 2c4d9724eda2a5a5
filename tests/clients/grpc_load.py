"""Unary gRPC calls over ONE long-lived grpcio channel, as an application that knows nothing of a mesh makes them.

Prints a JSON line per call, {"t": start in Unix seconds, "ms": duration, "ok": bool, "code": name,
"endpoint": who answered, "request_id": what an engine added}, and at the end {"summary": {...}}.
Ends after --seconds or --calls, whichever comes first, or on SIGTERM.
"""

import argparse
import collections
import json
import signal
import sys
import threading
import time

import grpc

import echo


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--target", required=True, help="HOST:PORT")
    arguments.add_argument("--seconds", type=float, default=1e9)
    arguments.add_argument("--calls", type=int, default=1 << 62)
    arguments.add_argument("--threads", type=int, default=4, help="calls in flight at most")
    arguments.add_argument("--rate", type=float, default=0, help="calls a second; 0 is as fast as answers come")
    arguments.add_argument("--payload", type=int, default=64, help="bytes")
    arguments.add_argument("--timeout", type=float, default=1.0, help="deadline of a call in seconds")
    arguments.add_argument("--quiet", action="store_true", help="the summary only")
    options = arguments.parse_args()

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    channel = grpc.insecure_channel(options.target)
    call = channel.unary_unary(echo.METHOD + "Unary")
    message = echo.request(b"x" * options.payload)
    lock = threading.Lock()
    endpoints, codes = collections.Counter(), collections.Counter()
    begun = time.monotonic()
    taken = 0

    def take():
        """The number of the next call, or None when there is none."""
        nonlocal taken
        with lock:
            if stop.is_set() or taken >= options.calls or time.monotonic() - begun >= options.seconds:
                return None
            taken += 1
            return taken - 1

    def work():
        while (number := take()) is not None:
            if options.rate:
                stop.wait(max(0, begun + number / options.rate - time.monotonic()))
            line = {"t": time.time(), "ms": 0.0, "ok": True, "code": "OK", "endpoint": "", "request_id": ""}
            try:
                answer = echo.reply(call(message, timeout=options.timeout))
                line["endpoint"], line["request_id"] = answer["endpoint"], answer["request_id"]
            except grpc.RpcError as error:
                line["ok"], line["code"], line["details"] = False, error.code().name, error.details()
            line["ms"] = round((time.time() - line["t"]) * 1000, 3)
            with lock:
                codes[line["code"]] += 1
                if line["ok"]:
                    endpoints[line["endpoint"]] += 1
                if not options.quiet:
                    sys.stdout.write(json.dumps(line) + "\n")

    threads = [threading.Thread(target=work, daemon=True) for _ in range(options.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    summary = {
        "calls": sum(codes.values()),
        "failed": sum(codes.values()) - codes["OK"],
        "codes": codes,
        "endpoints": endpoints,
        "seconds": round(time.monotonic() - begun, 3),
    }
    print(json.dumps({"summary": summary}))
    channel.close()


main()
