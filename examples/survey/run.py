"""`make demo`: starts Holdfast, runs the survey of jobs.py, prints what it found, stops Holdfast.

All it uses is the command `holdfast dev` and the HTTP API, so it is also an example of both.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SHOWN = 20
DEADLINE_SECONDS = 300
OURS = ("HOLDFAST_", "TRIGGER_")


def main() -> int:
    """Exit code 0 when the survey succeeded."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    command = [sys.executable, "-m", "holdfast", "dev", "jobs.py", "--port", "0", "--no-reload", "--json"]
    say("starting `holdfast dev` on its embedded SQLite ...")
    started = time.monotonic()
    with subprocess.Popen(command, cwd=HERE, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            first_line = server.stdout.readline()
            if not first_line:
                say("the server did not start; its error stands above")
                return 1
            ready = json.loads(first_line)
            say(f"ready at {ready['url']} after {time.monotonic() - started:.1f} s")
            api = Api(ready["url"], Path(ready["keyFile"]).read_text().strip())
            return survey(api)
        finally:
            server.terminate()


def survey(api: "Api") -> int:
    run_id = api.call("POST", "/api/v1/tasks/survey/trigger", {})["id"]
    say(f"triggered {run_id}: each package of the standard library is a run of its own")
    started = time.monotonic()
    run = watched(api, run_id)
    seconds = time.monotonic() - started
    if run["status"] != "COMPLETED_SUCCESSFULLY":
        say(f"the survey ended {run['status']}")
        print(document(run))
        return 1
    report = run["output"]
    print(table(report))
    total = report["total"]
    print(f"{len(report['packages'])} packages in {seconds:.1f} s; the longest function: {total['longest']}")
    print(retried(api, run))
    print("\nThe run of the parent, as GET /api/v3/runs/{id} answers it:\n")
    print(document(run))
    print(next_steps(run_id))
    return 0


class Api:
    """The HTTP API, with a secret key."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.key = key

    def call(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            self.url + path,
            None if body is None else json.dumps(body).encode(),
            {"authorization": f"Bearer {self.key}", "content-type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


def watched(api: Api, run_id: str) -> dict[str, Any]:
    """The run once it has ended; shows the progress that it keeps in its metadata."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    bar = Bar()
    while True:
        run: dict[str, Any] = api.call("GET", f"/api/v3/runs/{run_id}")
        progress = run["metadata"].get("progress")
        if progress:
            bar.show(progress["current"], progress["total"])
        if run["finishedAt"]:
            bar.close()
            return run
        if time.monotonic() > deadline:
            raise TimeoutError(f"{run_id} is {run['status']} after {DEADLINE_SECONDS} s")
        time.sleep(0.2)


class Bar:
    """A progress bar on a terminal, else a line for every tenth."""

    WIDTH = 40

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.tenth = -1

    def show(self, done: int, total: int) -> None:
        share = done / total if total else 1.0
        if self.live:
            full = round(share * self.WIDTH)
            sys.stderr.write(f"\r[{'#' * full}{'-' * (self.WIDTH - full)}] {done}/{total} packages")
            sys.stderr.flush()
        elif int(share * 10) > self.tenth:
            self.tenth = int(share * 10)
            say(f"{done}/{total} packages")

    def close(self) -> None:
        if self.live:
            sys.stderr.write("\n")


def table(report: dict[str, Any]) -> str:
    """The largest packages, and all of them together."""
    packages = report["packages"]
    rows = packages[:SHOWN]
    rest = len(packages) - len(rows)
    lines = [f"\n{'package':<20}{'files':>7}{'functions':>11}{'classes':>9}{'lines':>10}  longest function"]
    for row in [*rows, report["total"]]:
        if row is report["total"]:
            lines.append(f"... and {rest} more")
        longest = f"{row['longest']} ({row['longest_lines']} lines)" if row["longest"] else ""
        lines.append(
            f"{row['package']:<20}{row['files']:>7}{row['functions']:>11}{row['classes']:>9}{row['lines']:>10}"
            f"  {longest}".rstrip()
        )
    if report["total"]["unreadable"]:
        lines.append(
            f"{report['total']['unreadable']} of the files are no valid Python, on purpose: test data"
        )
    return "\n".join(lines) + "\n"


def retried(api: Api, run: dict[str, Any]) -> str:
    """The child that failed once: its attempts."""
    for child in run["relatedRuns"]["children"]:
        if "json" in child["tags"]:
            attempts = api.call("GET", f"/api/v3/runs/{child['id']}")["attempts"]
            told = ", then ".join(
                attempt["status"] + (f" ({attempt['error']['message']})" if attempt["error"] else "")
                for attempt in attempts
            )
            return f"The run of the package json was made to fail once: {told}."
    return "The run of the package json is not among the children shown."


def document(run: dict[str, Any]) -> str:
    """The JSON of a run with a line for each field, and for each object of a list."""

    def text(value: Any, indent: str) -> str:
        deeper = indent + "  "
        if isinstance(value, list) and value and isinstance(value[0], dict):
            items = ",\n".join(deeper + json.dumps(item) for item in value)
            return f"[\n{items}\n{indent}]"
        if isinstance(value, dict) and any(isinstance(item, list | dict) for item in value.values()):
            items = ",\n".join(
                f"{deeper}{json.dumps(key)}: {text(item, deeper)}" for key, item in value.items()
            )
            return f"{{\n{items}\n{indent}}}"
        return json.dumps(value)

    return text(run, "")


def next_steps(run_id: str) -> str:
    holdfast = os.path.relpath(Path(sys.executable).with_name("holdfast"), HERE)
    return f"""
To try next; the runs of this demo are kept in {os.path.relpath(HERE)}/.holdfast:

  cd {os.path.relpath(HERE)}
  {holdfast} dev jobs.py

and in a second terminal, in the same folder:

  {holdfast} runs list
  {holdfast} runs get {run_id}
  {holdfast} trigger survey-package '"asyncio"' --wait
  {holdfast} runs watch $({holdfast} trigger survey)"""


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
