"""A pod that wants more than its share: floods of one kind, until SIGTERM or for --seconds.

Says `ready` when its connections stand, and one line of JSON at its end: how many connections it opened and how many
were refused.
"""
import argparse
import json
import selectors
import signal
import socket
import struct
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


SETTINGS = frame(4, 0, 0)
ACK = frame(4, 1, 0)
PING = frame(6, 0, 0, b"\0" * 8)
WINDOW_UPDATE = frame(8, 0, 0, struct.pack(">I", 1))
LITERAL = b"\x00"


def hpack(name, value):
    def string(text):
        length = len(text)
        if length < 127:
            return bytes([length]) + text
        length -= 127
        out = bytearray([127])
        while length >= 128:
            out.append(length % 128 + 128)
            length //= 128
        out.append(length)
        return bytes(out) + text

    return LITERAL + string(name) + string(value)


def post(path):
    return hpack(b":method", b"POST") + hpack(b":scheme", b"http") + hpack(b":path", path) + hpack(b":authority", b"a")


def uploads(streams, window):
    """Streams that are opened, each with as much data as the window allows."""
    out = bytearray(PREFACE + SETTINGS)
    for number in range(streams):
        stream = 2 * number + 1
        out += frame(1, 4, stream, post(b"/hold/60000"))
        left = window
        while left > 0:
            part = min(left, 16384)
            out += frame(0, 0, stream, b"x" * part)
            left -= part
    return bytes(out)


def head(size):
    filler = b"".join(b"x-filler-%d: %s\r\n" % (i, b"y" * 1000) for i in range(size // 1016))
    return b"GET /bytes/128 HTTP/1.1\r\nhost: a\r\n" + filler + b"\r\n"


KINDS = {
    # What is sent at first, and then again and again.
    "idle": (b"", b""),
    "half-head": (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 60_000, b""),
    "uploads": (uploads(64, 1_000), b""),
    "http2": (PREFACE + SETTINGS, b""),
    "ping": (PREFACE + SETTINGS + ACK, PING * 2000),
    "settings": (PREFACE + SETTINGS + ACK, SETTINGS * 2000),
    "window-update": (PREFACE + SETTINGS + ACK, WINDOW_UPDATE * 2000),
    "heads": (b"", head(48 * 1024)),
    "tcp": (b"", b"z" * 262_144),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3600)
    # Connections that were refused are opened again.
    parser.add_argument("--insist", action="store_true")
    arguments = parser.parse_args()
    host, port = arguments.target.rsplit(":", 1)
    address = (host.strip("[]"), int(port))
    first, again = KINDS[arguments.kind]
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    selector = selectors.DefaultSelector()
    counts = {"opened": 0, "refused": 0}

    def connect():
        counts["opened"] += 1
        peer = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        peer.setblocking(False)
        peer.connect_ex(address)
        selector.register(peer, selectors.EVENT_READ | selectors.EVENT_WRITE, [first, 0])

    for _ in range(arguments.connections):
        connect()
        # Answers of the kernel come while others are opened.
        pump(selector, again, counts, 0, address)
    print("ready", flush=True)
    until = time.monotonic() + arguments.seconds
    while not ended and time.monotonic() < until:
        pump(selector, again, counts, 0.05, address)
        if arguments.insist:
            missing = arguments.connections - len(selector.get_map())
            for _ in range(min(missing, 16)):
                connect()
    counts["open"] = len(selector.get_map())
    print(json.dumps(counts), flush=True)


def pump(selector, again, counts, wait, _address):
    for key, events in selector.select(wait):
        peer, state = key.fileobj, key.data
        try:
            if events & selectors.EVENT_READ and not peer.recv(262_144):
                raise OSError
            if events & selectors.EVENT_WRITE:
                sending, sent = state
                if sent == len(sending):
                    sending, sent = again, 0
                if sending:
                    sent += peer.send(memoryview(sending)[sent : sent + 262_144])
                else:
                    selector.modify(peer, selectors.EVENT_READ, state)
                state[0], state[1] = sending, sent
        except BlockingIOError:
            pass
        except OSError:
            counts["refused"] += 1
            selector.unregister(peer)
            peer.close()


main()
