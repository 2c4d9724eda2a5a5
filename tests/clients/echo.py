"""Messages of tests/proto/echo.proto by hand, so that the clients need grpcio alone."""

METHOD = "/derny.test.v1.Echo/"


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def request(payload=b"", count=0):
    """EchoRequest: payload = 1, count = 2."""
    message = b"\x0a" + varint(len(payload)) + payload if payload else b""
    return message + (b"\x10" + varint(count) if count else b"")


def read_varint(data, at):
    number, shift = 0, 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7


def reply(data):
    """EchoReply as a dictionary."""
    names = {1: "payload", 2: "endpoint", 3: "index", 4: "received", 5: "peer", 6: "request_id"}
    out = {"payload": b"", "endpoint": "", "index": 0, "received": 0, "peer": "", "request_id": ""}
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        value, at = read_varint(data, at)
        if key & 7 == 2:
            value, at = data[at : at + value], at + value
        name = names[key >> 3]
        out[name] = value.decode() if name in ("endpoint", "peer", "request_id") else value
    return out
