"""What one attempt says besides its outcome: logs, metadata, tags. Queued here, sent in order.

Any thread of user code may write; only the executor's loop sends. Nothing blocks and nothing is paid
while an attempt is silent. Changes are held back for a fifth of a second, so that a loop that counts
to a million sends five messages a second, and always sent before the outcome.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from holdfast.model.error import clean
from holdfast.model.limits import MAX_LOGS_PER_RUN, MAX_TAGS
from holdfast.wire import codec
from holdfast.worker.capture import now_ms

if TYPE_CHECKING:
    from holdfast.worker.durable import Durable

FLUSH_SECONDS = 0.2
RECORDS_PER_REPORT = 1_000
MAX_PENDING_OPERATIONS = 1_000  # the server takes no more in one report
MAX_LINE = 16 * 1024  # a longer line without an end is cut here

Operation = dict[str, Any]


class AttemptSession:
    """The session that `CurrentRun` writes to, and the recorder of its logs.

    touched  called from any thread when something is waiting after a time of silence
    written  how many changes of metadata an earlier process of this run has written: so many are passed
             over, because the code makes them again while it is replayed
    """

    def __init__(
        self,
        run_id: str,
        lease: int,
        touched: Callable[[AttemptSession], None],
        written: int = 0,
        make_durable: Callable[[AttemptSession], Durable] | None = None,
    ) -> None:
        self.run_id = run_id
        self._lease = lease
        self._touched = touched
        self._lock = threading.Lock()
        self._dirty = False
        self._closed = False
        self._records: list[dict[str, Any]] = []
        self._records_seen = 0
        self._partial: dict[str, str] = {}
        self._operations: tuple[list[Operation], list[Operation], list[Operation]] = ([], [], [])
        self._tags: list[str] = []
        self._written = written
        self.operations = 0  # changes of metadata that the code has made, from the top
        self.made: Durable | None = None
        self._make_durable = make_durable

    @property
    def durable(self) -> Durable | None:
        """Where the run's steps and waits go; made when it is first asked for, which most runs never do."""
        if self.made is None and self._make_durable is not None:
            with self._lock:
                if self.made is None:
                    self.made = self._make_durable(self)
        return self.made

    @property
    def lease(self) -> tuple[str, int]:
        """Run and lease number: what a call on behalf of this attempt is fenced by."""
        return self.run_id, self._lease

    @property
    def repeats_changes(self) -> bool:
        """Whether the next change of metadata was written by an earlier process."""
        return self.operations < self._written

    def metadata(
        self,
        operations: Sequence[Operation],
        parent_operations: Sequence[Operation] = (),
        root_operations: Sequence[Operation] = (),
    ) -> bool:
        """Queue changes; False for one that was written before. Raises InvalidRequest at once for what is not JSON."""
        groups = []
        for given in (operations, parent_operations, root_operations):
            groups.append(codec.decode(codec.encode(list(given)), "metadata") if given else [])
        with self._lock:
            was_written = self.repeats_changes
            self.operations += 1
            if was_written:
                return False
            for waiting, new in zip(self._operations, groups, strict=True):
                for operation in new:
                    _add_operation(waiting, operation)
            self._mark()
        return True

    def tags(self, tags: Sequence[str]) -> None:
        """Queue tags to be added; once more is harmless, so they are not counted."""
        with self._lock:
            self._tags.extend(tag for tag in tags if tag not in self._tags)
            self._mark()

    def log(self, at_ms: int, level: str, logger: str, message: str) -> None:
        with self._lock:
            self._record(at_ms, level, logger, message)

    def write(self, stream: str, text: str) -> None:
        with self._lock:
            whole, newline, rest = (self._partial.pop(stream, "") + text).rpartition("\n")
            if newline:
                for line in whole.split("\n"):
                    self._record(now_ms(), "INFO", stream, line)
            while len(rest) > MAX_LINE:
                self._record(now_ms(), "INFO", stream, rest[:MAX_LINE])
                rest = rest[MAX_LINE:]
            if rest:
                self._partial[stream] = rest

    def reports(self) -> Iterator[dict[str, Any]]:
        """What is waiting, as reports; each is given once."""
        with self._lock:
            if not self._dirty:
                return
            self._dirty = False
            records, self._records = self._records, []
            operations, self._operations = self._operations, ([], [], [])
            tags, self._tags = self._tags, []
            count = self.operations
        head = {"run": self.run_id, "lease": self._lease}
        for start in range(0, len(records), RECORDS_PER_REPORT):
            yield {"kind": "logs", **head, "records": records[start : start + RECORDS_PER_REPORT]}
        own, parent, root = operations
        # Counted with the last report of them: whoever dies between two writes some of them again.
        longest = max(map(len, operations))
        for start in range(0, longest, MAX_PENDING_OPERATIONS):
            part = slice(start, start + MAX_PENDING_OPERATIONS)
            named = {"operations": own[part], "parentOperations": parent[part], "rootOperations": root[part]}
            said = {"kind": "metadata", **head, **{name: group for name, group in named.items() if group}}
            if start + MAX_PENDING_OPERATIONS >= longest:
                said["written"] = count
            yield said
        for start in range(0, len(tags), MAX_TAGS):
            yield {"kind": "tags", **head, "tags": tags[start : start + MAX_TAGS]}

    def close(self) -> Iterator[dict[str, Any]]:
        """The last reports of this attempt; whatever comes later (a forgotten thread) is dropped."""
        with self._lock:
            for stream, rest in self._partial.items():
                self._record(now_ms(), "INFO", stream, rest)
            self._partial.clear()
            self._closed = True
        return self.reports()

    def _record(self, at_ms: int, level: str, logger: str, message: str) -> None:
        if self.made is not None and self.made.is_replaying:
            return  # it was logged when it happened
        self._records_seen += 1
        if self._records_seen > MAX_LOGS_PER_RUN:
            return
        if self._records_seen == MAX_LOGS_PER_RUN:
            level, logger = "WARNING", "holdfast"
            message = f"more than {MAX_LOGS_PER_RUN - 1:,} log records: the rest of this attempt is dropped"
        record = {
            "at": at_ms,
            "level": clean(level, 16),
            "logger": clean(logger, 256),
            "message": clean(message),
        }
        self._records.append(record)
        self._mark()

    def _mark(self) -> None:
        if not self._dirty and not self._closed:
            self._dirty = True
            self._touched(self)


def _add_operation(waiting: list[Operation], new: Operation) -> None:
    """Append `new`, or merge it into the last change where that has the same effect (rule R96)."""
    last = waiting[-1] if waiting else None
    if last is not None and last["type"] == new["type"] and last.get("key") == new.get("key"):
        if new["type"] == "set":
            last["value"] = new["value"]
            return
        if new["type"] == "increment":
            last["value"] += new["value"]
            return
    waiting.append(new)
