"""New code while old runs go on."""

from pathlib import Path

from worker.world import story, world

CODE = """
import asyncio
from holdfast.sdk.decorator import task

@task
async def version() -> int:
    return {number}

@task
async def slow() -> int:
    await asyncio.sleep(1.5)
    return {number}
"""


@story
async def test_reload_runs_new_code_and_lets_old_runs_finish_with_the_old_one(tmp_path: Path):
    jobs = tmp_path / "reloaded_jobs.py"
    jobs.write_text(CODE.format(number=1))
    async with world(tasks=(str(jobs),)) as w:
        old = await w.server.trigger("slow")
        await w.begun(old)
        jobs.write_text(CODE.format(number=2) + "\n")
        assert await w.supervisor.reload() is True
        new = await w.server.trigger("version")
        await w.server.ended(old, new)
        assert (old.outcome["output"], new.outcome["output"]) == ("1", "2")
        await w.server.until(lambda: len(w.server.workers) == 1)
        assert len(w.server.gone) == 1


@story
async def test_code_that_does_not_import_at_all_leaves_the_old_code_running(tmp_path: Path):
    jobs = tmp_path / "reloaded_jobs.py"
    jobs.write_text(CODE.format(number=1))
    async with world(tasks=(str(jobs),)) as w:
        jobs.write_text("raise RuntimeError('half a thought')\n")
        assert await w.supervisor.reload() is False
        await w.said("half a thought")
        run = await w.server.trigger("version")
        await w.server.ended(run)
    assert run.outcome["output"] == "1"
