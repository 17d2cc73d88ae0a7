"""Wakes other servers over PostgreSQL: NOTIFY after the commit and outside of it, LISTEN beside it.

A notification is a hint. One that is lost costs at most a second, because everyone who waits also polls; so errors here
are waited out and never told to anyone. Behind a pooler in transaction mode nothing is heard, and polling does it all.
"""

from __future__ import annotations

import json
import random
import secrets
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg

from holdfast.errors import StoreUnavailable
from holdfast.stores.link import connect

CHANNEL = "holdfast"
PAUSE_SECONDS = 0.05  # between two notifications, so that there are at most twenty a second
MAX_RUN_TOPICS = 150
MAX_PAYLOAD_BYTES = 7_900  # PostgreSQL takes less than 8000
EVERYTHING = "*"


class Notifier:
    """Sends topics to the other servers of a database, and hands theirs to `heard`; begins with the first topic."""

    def __init__(self, url: str, heard: Callable[[set[str]], None]) -> None:
        self._url = url
        self._heard = heard
        self._token = secrets.token_hex(6)
        self._lock = threading.Lock()
        self._waiting: set[str] = set()
        self._something = threading.Event()
        self._closing = threading.Event()
        self._bell, self._rung = socket.socketpair()  # ends the listener's wait
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        with self._lock:
            if not self._threads and not self._closing.is_set():
                self._threads = [
                    threading.Thread(target=work, name=f"postgres-{name}", daemon=True)
                    for name, work in (("notifier", self._send), ("listener", self._listen))
                ]
                for thread in self._threads:
                    thread.start()

    def send(self, topics: set[str]) -> None:
        with self._lock:
            self._waiting |= topics
        self._something.set()

    def close(self) -> None:
        if self._closing.is_set():
            return
        self._closing.set()
        self._something.set()
        self._bell.send(b"x")
        for thread in self._threads:
            thread.join()
        self._bell.close()
        self._rung.close()

    def _send(self) -> None:
        while not self._closing.is_set():
            try:
                with closing(connect(self._url)) as connection:
                    self._send_over(connection)
            except (psycopg.Error, StoreUnavailable):
                self._closing.wait(random.uniform(0.5, 1.5))

    def _send_over(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        while True:
            self._something.wait()
            if self._closing.is_set():
                return
            self._something.clear()
            with self._lock:
                topics, self._waiting = self._waiting, set()
            if topics:
                connection.execute("select pg_notify(%s, %s)", (CHANNEL, payload(self._token, topics)))
                self._closing.wait(PAUSE_SECONDS)

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                with closing(connect(self._url)) as connection:
                    connection.execute(f"listen {CHANNEL}")
                    self._heard({EVERYTHING})  # whatever was said before
                    self._listen_on(connection)
            except (psycopg.Error, StoreUnavailable):
                self._closing.wait(random.uniform(0.5, 1.5))

    def _listen_on(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(connection, selectors.EVENT_READ)
            selector.register(self._rung, selectors.EVENT_READ)
            while not self._closing.is_set():
                selector.select()
                topics: set[str] = set()
                for message in connection.notifies(timeout=0):
                    topics |= others(self._token, message.payload)
                if topics:
                    self._heard(topics)


def payload(token: str, topics: set[str]) -> str:
    """The topics as JSON after the sender's token; the first runs of many, and "*" when even that is too much."""
    runs = [topic for topic in topics if topic.startswith("run:")]
    text = json.dumps([token, *(topics.difference(runs)), *runs[:MAX_RUN_TOPICS]])
    return text if len(text.encode()) <= MAX_PAYLOAD_BYTES else json.dumps([token, EVERYTHING])


def others(token: str, text: str) -> set[str]:
    """The topics of another server; nothing for what is our own or not ours to read."""
    try:
        sender, *topics = json.loads(text)
    except (ValueError, TypeError):
        return set()
    return set() if sender == token else {topic for topic in topics if isinstance(topic, str)}
