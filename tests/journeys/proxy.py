"""A relay between a worker and its server that can lose an answer, as a server does that dies after its commit."""

from __future__ import annotations

import socket
import threading


class Proxy:
    """Listens on a port of its own. Set `lose` to bytes: the first answer that holds them never arrives."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.lose: bytes | None = None
        self.lost = threading.Event()
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in tuple(self._open):
            _shut(end)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            server = socket.create_connection(("127.0.0.1", self._target))
            self._open |= {client, server}
            threading.Thread(target=self._relay, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._relay, args=(server, client, True), daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with source:
            try:
                while data := source.recv(65_536):
                    if answers and self.lose is not None and self.lose in data:
                        self.lose = None
                        self.lost.set()
                        break
                    target.sendall(data)
            except OSError:
                pass  # the other half has ended the connection
            _shut(target)
            self._open.discard(source)


def _shut(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is closed already
