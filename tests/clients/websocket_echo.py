"""Text and binary messages over one WebSocket, each awaited before the next; prints how many came back as sent."""

import argparse
import os

from websockets.sync.client import connect


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--url", required=True, help="ws://HOST:PORT/ws")
    arguments.add_argument("--messages", type=int, default=100)
    options = arguments.parse_args()
    with connect(options.url, max_size=None, compression=None) as socket:
        for number in range(options.messages):
            # Sizes around each of the frame header's three forms.
            message = os.urandom((0, 125, 126, 65535, 65536)[number % 5]) if number % 2 else f"text {number}"
            socket.send(message)
            if socket.recv(timeout=10) != message:
                raise SystemExit(f"message {number} came back changed")
    print(options.messages)


main()
