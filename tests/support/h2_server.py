#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
#
# An HTTP/2 server for tests that answers each request in one way, right or wrong, frame by frame (RFC 9113). It reads
# certificate.pem and key.pem where it is started, and says "port N" when it listens.
import socket
import ssl
import struct
import sys
import threading

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
INTERNAL_ERROR, REFUSED_STREAM = 2, 7
ENDLESS = 100_000


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def integer(value):
    """Of a string's length, without Huffman coding (RFC 7541, 5.1)."""
    if value < 127:
        return bytes([value])
    out, value = [127], value - 127
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def fields(*pairs):
    """Literals that are not indexed (RFC 7541, 6.2.2)."""
    return b"".join(b"\0" + integer(len(n)) + n.encode() + integer(len(v)) + v.encode() for n, v in pairs)


def head(stream, *pairs, status="200", end=False):
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, fields((":status", status), *pairs))


def data(stream, payload, end=False):
    return frame(DATA, END_STREAM if end else 0, stream, payload)


class Gone(Exception):
    """The connection is to end here."""


def good(send, stream):
    send(head(stream, ("content-length", "5"), ("etag", '"v1"')) + data(stream, b"hello", True))


def unknown_length(send, stream):
    send(head(stream) + data(stream, b"hel") + data(stream, b"lo", True))


def short(send, stream):
    send(head(stream, ("content-length", "10"), ("etag", '"v1"')) + data(stream, b"hello", True))


def long(send, stream):
    send(head(stream, ("content-length", "5")) + data(stream, b"hello!", True))


def reset(send, stream):
    send(head(stream, ("content-length", "10"), ("etag", '"v1"')) + data(stream, b"hello"))
    send(frame(RST_STREAM, 0, stream, struct.pack(">I", INTERNAL_ERROR)))


def refused(send, stream):
    send(frame(RST_STREAM, 0, stream, struct.pack(">I", REFUSED_STREAM)))


def hang_up(send, stream):
    send(head(stream, ("content-length", "10"), ("etag", '"v1"')) + data(stream, b"hello"))
    raise Gone


def hang_up_early(send, stream):
    raise Gone


def go_away(send, stream):
    send(frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0)))
    raise Gone


def silent(send, stream):
    pass


def silent_body(send, stream):
    send(head(stream, ("content-length", "10"), ("etag", '"v1"')) + data(stream, b"hello"))


def many_fields(send, stream):
    for _ in range(100):
        block = fields((":status", "200"), *(("x-filler", "x" * 1000) for _ in range(15)))
        send(frame(HEADERS, 0, stream, block))
        for _ in range(ENDLESS):
            send(frame(CONTINUATION, 0, stream, fields(*(("x-filler", "x" * 1000) for _ in range(15)))))


def large_head(send, stream):
    """Whole, in a few frames, and above the cap."""
    send(frame(HEADERS, 0, stream, fields((":status", "200"), *(("x-filler", "x" * 1000) for _ in range(15)))))
    for i in range(6):
        send(frame(CONTINUATION, END_HEADERS if i == 5 else 0, stream,
                   fields(*(("x-filler", "x" * 1000) for _ in range(15)))))
    send(data(stream, b"hello", True))


def informational(send, stream):
    for _ in range(ENDLESS):
        send(head(stream, ("link", "x"), status="103"))


def trailers(send, stream):
    send(head(stream) + data(stream, b"hello"))
    send(frame(HEADERS, END_STREAM, stream, fields(("x-filler", "x"))))
    for _ in range(ENDLESS):
        send(frame(CONTINUATION, 0, stream, fields(*(("x-filler", "x" * 1000) for _ in range(15)))))


def two_lengths(send, stream):
    send(head(stream, ("content-length", "5"), ("content-length", "6")) + data(stream, b"hello", True))


def odd_length(send, stream):
    send(head(stream, ("content-length", "-5")) + data(stream, b"hello", True))


def odd_status(send, stream):
    send(head(stream, status="2000") + data(stream, b"hello", True))


def encoded(send, stream):
    send(head(stream, ("content-encoding", "gzip")) + data(stream, b"hello", True))


def to_http(send, stream):
    send(head(stream, ("location", "http://127.0.0.1:1/file"), status="302", end=True))


def not_http2(send, stream):
    send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


def endless(send, stream):
    """The client's window ends it, where nothing else does."""
    send(head(stream))
    for _ in range(ENDLESS):
        send(data(stream, b"x" * 16384))


def forbidden(send, stream):
    send(head(stream, status="403") + data(stream, b"no", True))


def serve(connection, context, behaviour):
    def send(payload):
        tls.sendall(payload)

    def read(count):
        out = b""
        while len(out) < count:
            piece = tls.recv(count - len(out))
            if not piece:
                raise Gone
            out += piece
        return out

    try:
        tls = context.wrap_socket(connection, server_side=True)
        read(24)  # the preface
        send(frame(SETTINGS, 0, 0))
        while True:
            header = read(9)
            payload = read(int.from_bytes(header[:3], "big"))
            kind, flags, stream = header[3], header[4], int.from_bytes(header[5:9], "big") & 0x7FFFFFFF
            if kind == SETTINGS and not flags & ACK:
                send(frame(SETTINGS, ACK, 0))
            elif kind == PING and not flags & ACK:
                send(frame(PING, ACK, 0, payload))
            elif kind == HEADERS:
                behaviour(send, stream)
    except (Gone, OSError):
        pass
    finally:
        connection.close()


def main():
    behaviour = globals()[sys.argv[1]]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("certificate.pem", "key.pem")
    context.set_alpn_protocols(["h2"])
    listener = socket.create_server(("127.0.0.1", 0))
    print("port", listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection, context, behaviour), daemon=True).start()


main()
