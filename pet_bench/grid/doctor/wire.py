"""Connections from machine to machine, on ports that the system chooses. As `machine`, it goes as code to nodes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

SECONDS = 5.0  # for one connection


class Listening:
    """A port on which every call is answered with a word."""

    def __init__(self, word: str):
        family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        self.server = socket.create_server(
            ("", 0), family=family, backlog=1024, dualstack_ipv6=family == socket.AF_INET6
        )
        self.port: int = self.server.getsockname()[1]
        self.word = word.encode()
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        with suppress(OSError):  # closed
            while True:
                call, _ = self.server.accept()
                with suppress(OSError), call:
                    call.sendall(self.word)

    def close(self) -> None:
        self.server.close()


def reach(places: Mapping[str, tuple[str, int]]) -> dict[str, str]:
    """By the word that is to be heard there (of whoever listens), why it is not; nothing where it is."""

    def call(word: str) -> str:
        try:
            with socket.create_connection(places[word], timeout=SECONDS) as connection:
                heard = b""
                while len(heard) < len(word.encode()) and (more := connection.recv(1024)):
                    heard += more
        except OSError as error:
            return error.strerror or str(error)
        return "" if heard == word.encode() else "another machine answers there"

    with ThreadPoolExecutor(32) as pool:
        return dict(zip(places, pool.map(call, places), strict=True))
