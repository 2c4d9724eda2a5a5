"""Calls at a steady pace, timed: 100 a second on one connection that is kept, and 20 a second on a new one each.

Each call is one line of JSON when it has ended: {"kind": "kept" | "new", "ms": ..., "ok": ...}.
"""
import argparse
import http.client
import json
import signal
import threading
import time


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True)
    parser.add_argument("--path", default="/bytes/128")
    parser.add_argument("--timeout", type=float, default=5)
    arguments = parser.parse_args()
    host, port = arguments.target.rsplit(":", 1)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    lock = threading.Lock()

    def say(kind, begun, ok, error=""):
        took = (time.perf_counter() - begun) * 1000
        with lock:
            print(json.dumps({"kind": kind, "ms": took, "ok": ok, "error": error}), flush=True)

    def connection():
        return http.client.HTTPConnection(host.strip("[]"), int(port), timeout=arguments.timeout)

    def call(kind, using):
        begun = time.perf_counter()
        try:
            using.request("GET", arguments.path)
            answer = using.getresponse()
            answer.read()
            say(kind, begun, answer.status == 200, "" if answer.status == 200 else str(answer.status))
            return answer.status == 200
        except (OSError, http.client.HTTPException) as error:
            say(kind, begun, False, repr(error))
            using.close()
            return False

    def every(seconds, work):
        next_at = time.perf_counter()
        while not ended.is_set():
            work()
            next_at = max(next_at + seconds, time.perf_counter() - seconds)
            time.sleep(max(0, next_at - time.perf_counter()))

    kept = connection()

    def new():
        using = connection()
        call("new", using)
        using.close()

    threads = [
        threading.Thread(target=every, args=(0.01, lambda: call("kept", kept))),
        threading.Thread(target=every, args=(0.05, new)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


main()
