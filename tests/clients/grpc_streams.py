"""All three streaming kinds over one grpcio channel, checked message by message.

Prints one JSON line {"server": endpoint, "client": endpoint, "bidi": endpoint, "messages": n}; on a wrong answer it
says what was wrong and exits with 1.
"""

import argparse
import json
import queue
import sys

import grpc

import echo


def expect(found, wanted, what):
    if found != wanted:
        sys.exit(f"{what}: {found!r} instead of {wanted!r}")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--target", required=True, help="HOST:PORT")
    arguments.add_argument("--messages", type=int, default=1000)
    arguments.add_argument("--payload", type=int, default=1000, help="bytes")
    arguments.add_argument("--timeout", type=float, default=30.0)
    options = arguments.parse_args()
    count, payload = options.messages, b"x" * options.payload

    with grpc.insecure_channel(options.target) as channel:
        stream = channel.unary_stream(echo.METHOD + "ServerStream")
        replies = [echo.reply(m) for m in stream(echo.request(payload, count), timeout=options.timeout)]
        expect([r["index"] for r in replies], list(range(count)), "server stream: places")
        expect({len(r["payload"]) for r in replies}, {len(payload)}, "server stream: payloads")
        server = {r["endpoint"] for r in replies}

        collect = channel.stream_unary(echo.METHOD + "ClientStream")
        messages = (echo.request(payload) for _ in range(count))
        reply = echo.reply(collect(messages, timeout=options.timeout))
        expect(reply["index"], count, "client stream: messages")
        expect(reply["received"], count * len(payload), "client stream: bytes")

        # Each message is sent only when the answer to the one before has come; None ends the sender.
        both = channel.stream_stream(echo.METHOD + "Bidi")
        outgoing, replies = queue.Queue(), []
        outgoing.put(echo.request(b"0"))
        for message in both(iter(outgoing.get, None), timeout=options.timeout):
            replies.append(echo.reply(message))
            number = len(replies)
            outgoing.put(echo.request(str(number).encode()) if number < count else None)
        expect([r["index"] for r in replies], list(range(count)), "bidi: places")
        expect([int(r["payload"]) for r in replies], list(range(count)), "bidi: payloads")
        bidi = {r["endpoint"] for r in replies}

    print(json.dumps({"server": sorted(server), "client": [reply["endpoint"]], "bidi": sorted(bidi), "messages": count}))


main()
