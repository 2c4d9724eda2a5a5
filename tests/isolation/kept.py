"""A connection that is kept: for each line of input, a GET of that path; says who the server saw, or how it ended.

A path of "-" ends the input without closing the connection.
"""

import json
import socket
import sys

host, port = sys.argv[1].rsplit(":", 1)
family = socket.AF_INET6 if ":" in host else socket.AF_INET
connection = socket.socket(family, socket.SOCK_STREAM)
connection.settimeout(20)
connection.connect((host.strip("[]"), int(port)))
stream = connection.makefile("rwb")
print("connected", flush=True)
for line in sys.stdin:
    path = line.strip()
    try:
        stream.write(f"GET {path} HTTP/1.1\r\nhost: kept\r\n\r\n".encode())
        stream.flush()
        head = []
        while (read := stream.readline()) not in (b"\r\n", b""):
            head.append(read.decode().lower())
        if not head:
            print("closed", flush=True)
            continue
        length = next(int(one.split(":")[1]) for one in head if one.startswith("content-length"))
        body = stream.read(length)
        status = head[0].split(" ")[1]
        try:
            said = json.loads(body)["peer"].rsplit(":", 1)[0]
        except (ValueError, KeyError, TypeError):
            said = "somebody"
        print(f"{status} {said}", flush=True)
    except (OSError, StopIteration) as error:
        print(f"failed {type(error).__name__}", flush=True)
