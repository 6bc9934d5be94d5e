"""Servers that do to a client what it must survive, by raw sockets; each stops when its `with` ends."""

import gzip
import socket
import threading
import time
from contextlib import contextmanager


class Hostile:
    """Listens on a port of its own; `behave` gets each connection, `held` counts them, `sent` the bytes that went out."""

    def __init__(self, behave):
        self.behave, self.held, self.sent, self.stopped = behave, 0, 0, threading.Event()
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(64)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while not self.stopped.is_set():
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.held += 1
            threading.Thread(target=self.meet, args=(connection,), daemon=True).start()

    def meet(self, connection):
        try:
            with connection:
                self.behave(self, connection)
        except OSError:
            pass

    def send(self, connection, data):
        connection.sendall(data)
        self.sent += len(data)

    def trickle(self, connection, data, pause=0.05):
        for i in range(len(data)):
            if self.stopped.wait(pause):
                return
            self.send(connection, data[i : i + 1])

    def stop(self):
        self.stopped.set()
        self.listener.close()


def silent(server, connection):
    """Takes everything, says nothing."""
    connection.settimeout(0.1)
    while not server.stopped.is_set():
        try:
            if not connection.recv(65536):
                return
        except TimeoutError:
            pass


def trickled_headers(server, connection):
    """A byte of a header every 50 ms, without end."""
    connection.recv(65536)
    server.send(connection, b"HTTP/1.1 200 OK\r\nX-Long: ")
    server.trickle(connection, b"x" * 10_000)


def trickled_body(server, connection):
    """A byte of a body every 50 ms."""
    connection.recv(65536)
    server.send(connection, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10000\r\n\r\n")
    server.trickle(connection, b" " * 10_000)


def gigabyte(server, connection):
    """A body of a gigabyte, as fast as it is taken."""
    connection.recv(65536)
    server.send(connection, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1073741824\r\n\r\n")
    for _ in range(1024):
        server.send(connection, b" " * 2**20)


_BOMB = gzip.compress(bytes(2**24), 1) * 64


def bomb(server, connection):
    """Gzip that unpacks to a gigabyte; nobody asked for it."""
    connection.recv(65536)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(_BOMB)}\r\n\r\n"
    server.send(connection, head.encode() + _BOMB)


@contextmanager
def hostile(behave):
    server = Hostile(behave)
    try:
        yield server
    finally:
        server.stop()


def decision_seconds(call):
    """How long a call took that must fail; and its error."""
    began = time.monotonic()
    try:
        call()
    except Exception as error:
        return time.monotonic() - began, error
    raise AssertionError("it did not fail")
