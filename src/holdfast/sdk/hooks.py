"""Functions that run around the attempts of a task, or of every task.

    on_start_attempt(run)        before the function, at every attempt
    on_success(run, output)      after it returned
    catch_error(run, error)      after it raised: return `AbortRun(…)` or `RetryAfter(…)` to decide
    on_failure(run, error)       after it raised, when no attempt follows
    on_complete(run)             when no attempt follows, however it ended
    on_cancel(run)               a cancelled attempt is being stopped
    on_wait(run)                 before a run that waits is suspended
    on_resume(run)               where it goes on, in place of on_start_attempt
    middleware(run, next)        around all of it: call `next()` and await what it gives

Each may be sync or async. Global hooks run before the task's own, `catch_error` after them; of one
kind they run in the order of registration. What is raised before the function fails the attempt;
what is raised after it is logged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

KINDS = (
    "on_start_attempt",
    "on_success",
    "on_failure",
    "on_complete",
    "on_cancel",
    "on_wait",
    "on_resume",
    "catch_error",
    "middleware",
)


class HookList(list[Callable[..., Any]]):
    """The hooks of one kind, in order. Calling it registers a function, so it is a decorator as well.

    @global_hooks.on_failure
    def tell(run, error): ...
    """

    def __call__(self, hook: F) -> F:
        """Register `hook`. A function of the same module and name (a reloaded module) is replaced."""
        if not callable(hook):
            raise TypeError(f"a hook is {hook!r}: expected a function")
        name = _name(hook)
        for index, known in enumerate(self):
            if "<" not in name[1] and _name(known) == name:
                self[index] = hook
                return hook
        self.append(hook)
        return hook


class Hooks:
    """The hooks of a task, or with `global_hooks` those of every task in this process.

    Each kind takes a function or several: `Hooks(on_failure=tell, middleware=[first, second])`.
    Raises TypeError for an unknown kind.
    """

    __slots__ = KINDS

    on_start_attempt: HookList
    on_success: HookList
    on_failure: HookList
    on_complete: HookList
    on_cancel: HookList
    on_wait: HookList
    on_resume: HookList
    catch_error: HookList
    middleware: HookList

    def __init__(self, **hooks: Callable[..., Any] | Iterable[Callable[..., Any]] | None) -> None:
        for kind in KINDS:
            setattr(self, kind, HookList())
        for kind, given in hooks.items():
            if kind not in KINDS:
                raise TypeError(f"there is no hook {kind!r}; there are {', '.join(KINDS)}")
            for hook in [given] if callable(given) else given or ():
                getattr(self, kind)(hook)

    def clear(self) -> None:
        for kind in KINDS:
            getattr(self, kind).clear()


def _name(hook: Callable[..., Any]) -> tuple[str, str]:
    """Module and qualified name; one with "<" in it is no name to tell functions apart by."""
    return getattr(hook, "__module__", "") or "", getattr(hook, "__qualname__", "<unnamed>")


global_hooks = Hooks()
