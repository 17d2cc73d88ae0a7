"""Metadata and tags of the run that executes now. Changes are sent in the background, never awaited."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Set
from typing import Any

from holdfast.errors import InvalidRequest, Unprocessable
from holdfast.model.limits import MAX_TAG, MAX_TAGS
from holdfast.model.metadata import Operation, applied, check_operations

Send = Callable[[list[Operation]], bool | None]  # False: it was written before, in an earlier process


class MetadataWriter:
    """Changes to a run's metadata that can not be read here: those of `metadata.parent` and `.root`.

    Values are JSON, or what pydantic writes as JSON. A key that starts with "$." is a path, such as
    "$.steps.0.name". Raises InvalidRequest for a value or key that can not be kept.
    """

    def __init__(self, send: Send) -> None:
        self._send = send

    def __setitem__(self, key: str, value: Any) -> None:
        self._change({"type": "set", "key": key, "value": value})

    def __delitem__(self, key: str) -> None:
        self._change({"type": "delete", "key": key})

    def increment(self, key: str, by: float = 1) -> None:
        """Add `by` (it may be negative) to a number; what is no number counts as 0."""
        self._change({"type": "increment", "key": key, "value": by})

    def append(self, key: str, value: Any) -> None:
        """Add `value` to the end of a list; a missing one is made."""
        self._change({"type": "append", "key": key, "value": value})

    def remove(self, key: str, value: Any) -> None:
        """Take every item equal to `value` out of a list."""
        self._change({"type": "remove", "key": key, "value": value})

    def replace(self, metadata: Mapping[str, Any]) -> None:
        """Put `metadata` in the place of all there is."""
        self._change({"type": "update", "value": dict(metadata)})

    def update(self, changes: Mapping[str, Any] = {}, /, **more: Any) -> None:
        """Set several keys at once; the other ones stay, as with a dict."""
        operations = [
            {"type": "set", "key": key, "value": value} for key, value in {**changes, **more}.items()
        ]
        if operations:
            self._change(*operations)

    def _change(self, *operations: Operation) -> None:
        from holdfast.wire import codec

        plain = codec.decode(codec.encode(list(operations)), "metadata")
        self._apply(check_operations(plain, "metadata"))

    def _apply(self, operations: list[Operation]) -> None:
        self._send(operations)


class RunMetadata(MetadataWriter, MutableMapping[str, Any]):
    """The metadata of the current run: a mapping that shows this attempt's own writes at once.

    parent  that of the parent run, for writing; of a run without a parent it is the run's own
    root    that of the run at the top
    """

    def __init__(
        self,
        metadata: Mapping[str, Any],
        send: Send,
        parent: MetadataWriter,
        root: MetadataWriter,
        repeats: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(send)
        self._known = dict(metadata)
        self._repeats = (
            repeats  # whether the next change was written before: then its key may be gone already
        )
        self.parent = parent
        self.root = root

    def __getitem__(self, key: str) -> Any:
        return self._known[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def __repr__(self) -> str:
        return f"RunMetadata({self._known!r})"

    def __delitem__(self, key: str) -> None:
        if key not in self._known and not self._repeats():
            raise KeyError(key)
        super().__delitem__(key)

    def clear(self) -> None:
        self.replace({})

    # What dict.update takes besides a mapping (pairs) has no use here.
    update = MetadataWriter.update  # type: ignore[assignment]  # narrower on purpose

    def _apply(self, operations: list[Operation]) -> None:
        if self._send(operations) is False:
            return  # what is known has it already
        for operation in operations:
            key = operation.get("key", "$.")
            if key.startswith("$."):
                self._known = applied(self._known, [operation])
            else:  # one key alone, so that a loop that counts does not copy everything
                part = {key: self._known[key]} if key in self._known else {}
                changed = applied(part, [operation])
                self._known.pop(key, None) if key not in changed else self._known.update(changed)


class RunTags(Set[str]):
    """The tags of the current run: a set to which one may add."""

    def __init__(self, tags: list[str], send: Callable[[list[str]], None]) -> None:
        self._tags = dict.fromkeys(tags)
        self._send = send

    def __contains__(self, tag: object) -> bool:
        return tag in self._tags

    def __iter__(self) -> Iterator[str]:
        return iter(self._tags)

    def __len__(self) -> int:
        return len(self._tags)

    def __repr__(self) -> str:
        return f"RunTags({list(self._tags)!r})"

    def add(self, *tags: str) -> None:
        """Add tags; those it has already are ignored. Raises as `checked_tags`, and then adds none."""
        new = [tag for tag in checked_tags(tags, list(self._tags)) if tag not in self._tags]
        if new:
            self._send(new)
            self._tags.update(dict.fromkeys(new))


def checked_tags(tags: Iterator[str] | tuple[str, ...] | list[str], known: list[str]) -> list[str]:
    """`known` and `tags` without repeats.

    Raises InvalidRequest for one that is no text, empty or over 128 characters; Unprocessable past ten.
    """
    merged = dict.fromkeys(known)
    for tag in tags:
        if not isinstance(tag, str) or not tag.strip():
            raise InvalidRequest(f"tags holds {tag!r}: expected texts that are not empty", "tags")
        if len(tag) > MAX_TAG:
            raise InvalidRequest(
                f"tags holds a tag of {len(tag)} characters ({tag[:20]!r}…): at most {MAX_TAG}", "tags"
            )
        merged[tag] = None
    if len(merged) > MAX_TAGS:
        raise Unprocessable(f"there are {len(merged)} tags: at most {MAX_TAGS}", "tags")
    return list(merged)
