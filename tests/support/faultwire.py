"""HTTP/1.1 on non-blocking sockets, as little of it as the fault proxy needs: heads, bodies, and a reset on demand.

The proxy has to cut, flip and hold single bytes and to keep up with a fast store while it does, so it reads and writes
its sockets itself in large pieces instead of going through asyncio's streams.
"""
import asyncio
import socket
import struct

PIECE = 256 * 1024
HEAD_LIMIT = 64 * 1024


class Gone(Exception):
    """The other side closed or reset the connection, or said what is no HTTP."""


class Wire:
    """One connection."""

    def __init__(self, sock):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock, self.loop, self.buffer = sock, asyncio.get_running_loop(), b""

    @classmethod
    async def connect(cls, host, port):
        sock = socket.socket()
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (host, port))
        except OSError as error:
            sock.close()
            raise Gone(str(error)) from error
        return cls(sock)

    async def receive(self):
        try:
            data = await self.loop.sock_recv(self.sock, PIECE)
            # A recv that need not wait does not let the others run either.
            await asyncio.sleep(0)
        except OSError as error:
            raise Gone(str(error)) from error
        return data

    async def read_head(self):
        """The first line and the headers as a list of pairs; None at the end of the connection."""
        while b"\r\n\r\n" not in self.buffer:
            data = await self.receive()
            if not data:
                if self.buffer:
                    raise Gone("the connection ended in a head")
                return None
            self.buffer += data
            if len(self.buffer) > HEAD_LIMIT + PIECE:
                raise Gone("a head without an end")
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        return first, [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]

    async def read_some(self, most):
        """1 to most bytes, or b"" at the end of the connection."""
        if not self.buffer:
            self.buffer = await self.receive()
        piece, self.buffer = self.buffer[:most], self.buffer[most:]
        return piece

    async def read_line(self):
        while b"\r\n" not in self.buffer:
            data = await self.receive()
            if not data or len(self.buffer) > HEAD_LIMIT:
                raise Gone("a chunk without a size")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    async def send(self, data):
        try:
            await self.loop.sock_sendall(self.sock, data)
        except OSError as error:
            raise Gone(str(error)) from error

    async def send_head(self, first, headers):
        lines = "".join("%s: %s\r\n" % pair for pair in headers)
        await self.send((first + "\r\n" + lines + "\r\n").encode("latin-1"))

    def ended(self):
        """True when the other side closed while nothing was asked of it."""
        try:
            return self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self):
        self.sock.close()

    def reset(self):
        """Closes with an RST: what is under way is lost."""
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
        self.sock.close()


def find(headers, name):
    """The value of a header, or None."""
    for key, value in headers:
        if key.lower() == name:
            return value
    return None


def without(headers, *names):
    return [(key, value) for key, value in headers if key.lower() not in names]


def framing(headers, to_the_end=False):
    """How a body is delimited: a number of bytes, "chunked", or "end"."""
    if "chunked" in (find(headers, "transfer-encoding") or "").lower():
        return "chunked"
    length = find(headers, "content-length")
    if length is not None:
        if not length.isdigit():
            raise Gone("a content-length that is no number")
        return int(length)
    return "end" if to_the_end else 0


async def body_of(wire, frame):
    """The payload in pieces, without the chunks' own bytes."""
    while frame == "chunked":
        size = int((await wire.read_line()).split(b";")[0], 16)
        left = size
        while left > 0:
            piece = await wire.read_some(min(left, PIECE))
            if not piece:
                raise Gone("the connection ended in a chunk")
            left -= len(piece)
            yield piece
        line = await wire.read_line()
        if size == 0:
            while line:
                line = await wire.read_line()
            return
    left = frame
    while left == "end" or left > 0:
        piece = await wire.read_some(PIECE if left == "end" else min(left, PIECE))
        if not piece:
            if left == "end":
                return
            raise Gone("the connection ended in a body")
        left = left if left == "end" else left - len(piece)
        yield piece
