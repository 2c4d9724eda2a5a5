"""A client that knows nothing of the mesh. Takes a description as JSON, prints what it saw as JSON.

family 4 or 6, to [ip, port]; optional: udp, mptcp, fastopen, v6only, bind [ip, port], device, mark, nonblocking, first [ip, port]
(a connect that is expected to fail, on the same socket, before the other).
"""
import json, select, socket, struct, sys

o = json.loads(sys.argv[1])
family = socket.AF_INET6 if o["family"] == 6 else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM if o.get("udp") else socket.SOCK_STREAM,
                  262 if o.get("mptcp") else 0)
# Not settimeout: that would make the socket non-blocking.
for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
    s.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", 3, 0))
if family == socket.AF_INET6:
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(o.get("v6only", False)))
if "mark" in o:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, o["mark"])
if "device" in o:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, o["device"].encode())
if "bind" in o:
    s.bind(tuple(o["bind"]))
seen = {"said": "", "error": ""}
try:
    if "first" in o:
        try:
            s.connect(tuple(o["first"]))
            raise SystemExit("the first connect was to fail")
        except OSError as error:
            seen["first"] = str(error)
    if o.get("nonblocking"):
        s.setblocking(False)
        seen["in_progress"] = s.connect_ex(tuple(o["to"])) == 115
        select.select([], [s], [], 3)
        error = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, "connect")
        s.setblocking(True)
    elif o.get("fastopen"):
        s.sendto(b"hello", socket.MSG_FASTOPEN, tuple(o["to"]))
        # The call need not wait for the connection.
        select.select([], [s], [], 3)
    else:
        s.connect(tuple(o["to"]))
    seen["peer"] = list(s.getpeername()[:2])
    seen["local"] = list(s.getsockname()[:2])
    if not o.get("udp"):
        while chunk := s.recv(4096):
            seen["said"] += chunk.decode()
except OSError as error:
    seen["error"] = str(error)
print(json.dumps(seen))
