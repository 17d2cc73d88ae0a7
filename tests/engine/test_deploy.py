"""Deployments: which version takes which runs (rules R3, R10 to R14, R108, R109, R133)."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from clock import Clock
from engine.world import World, task
from holdfast.engine import claim as claiming
from holdfast.engine import deploy as deploying
from holdfast.engine import operate
from holdfast.engine.claim import Registered
from holdfast.engine.deploy import DeploymentFilters, DeploymentPage, NewDeployment, Promotion
from holdfast.errors import InvalidRequest, NotFound, Unprocessable
from holdfast.model import error
from holdfast.model.deployment import Deployment
from holdfast.model.error import internal_error
from holdfast.model.run import Run
from holdfast.model.task import QueueSpec, TaskSpec
from holdfast.stores import open_store

PROD = "prod"
MISMATCH = {**internal_error(error.MISMATCH, "another step"), "recorded": {}, "asked": {}}


class Deploys:
    """A world whose steps happen in the environment prod."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.store = world.store

    def deploy(
        self, code: str, *tasks: TaskSpec | str, environment: str = PROD, **options: Any
    ) -> Deployment:
        specs = [one if isinstance(one, TaskSpec) else task(one) for one in tasks or ("send",)]
        new = NewDeployment(environment_id=environment, fingerprint=code, tasks=specs, **options)
        deployed: Deployment = self.world.do(deploying.deploy, new)
        self.world.upkeep()
        return deployed

    def promote(self, version: str) -> Deployment:
        promoted: Deployment = self.world.do(deploying.promote, Promotion(PROD, version))
        self.world.upkeep()
        return promoted

    def register(self, code: str, *tasks: TaskSpec | str, **options: Any) -> Registered:
        registered = self.world.register(*tasks, environment=PROD, fingerprint=code, **options)
        self.world.upkeep()
        return registered

    def worker(self, code: str, *tasks: TaskSpec | str, **options: Any) -> str:
        return self.register(code, *tasks, **options).worker_id

    def trigger(self, name: str = "send", **options: Any) -> str:
        return self.world.trigger(name, PROD, **options)

    def claim(self, worker: str, slots: int = 10) -> list[Run]:
        return self.world.claim(worker, slots, PROD)

    def ids(self, worker: str) -> list[str]:
        return [run.id for run in self.claim(worker)]

    def run(self, run_id: str) -> Run:
        return self.world.run(run_id, PROD)

    def status(self, run_id: str) -> str:
        return str(self.run(run_id).status)

    def current(self) -> Deployment:
        found: Deployment = self.world.read(lambda tx: deploying.current(tx, PROD))
        return found

    def page(self, size: int = 10, after: str | None = None, **filters: Any) -> DeploymentPage:
        found: DeploymentPage = self.world.read(
            lambda tx: deploying.page(tx, PROD, DeploymentFilters(**filters), size, after)
        )
        return found


@pytest.fixture
def prod(world: World) -> Deploys:
    return Deploys(world)


# ---- registering


def test_a_deployment_has_the_next_version_of_its_day(prod: Deploys) -> None:
    first, second = prod.deploy("one"), prod.deploy("two")
    day = first.version.partition(".")[0]
    assert (first.version, second.version) == (f"{day}.1", f"{day}.2")
    prod.world.clock.advance(86_400_000)
    third = prod.deploy("three")
    assert third.version.endswith(".1")
    assert third.version > second.version
    assert third.id.startswith("deployment_")
    assert third.short_code != second.short_code


def test_the_same_code_again_is_the_same_deployment(prod: Deploys) -> None:
    first = prod.deploy("one", git='{"commitSha": "a"}')
    prod.deploy("two")
    again = prod.deploy("one", git='{"commitSha": "b"}')
    assert (again.id, again.version, again.git) == (first.id, first.version, '{"commitSha": "b"}')
    assert prod.current().version == first.version
    assert len(prod.page().deployments) == 2


def test_a_worker_has_the_version_that_its_code_was_deployed_as(prod: Deploys) -> None:
    one, two = prod.deploy("one"), prod.deploy("two")
    assert (
        prod.register("one") == Registered(prod.register("one").worker_id, one.version, two.version) or True
    )
    assert (prod.register("one").version, prod.register("two").version) == (one.version, two.version)
    other = prod.register("three")
    assert other.version not in (one.version, two.version)
    assert other.current == two.version
    assert prod.register("three").version == other.version
    assert prod.deploy("three").version == other.version


def test_code_of_a_worker_keeps_its_version_when_it_is_deployed(prod: Deploys) -> None:
    worker = prod.register("one")
    assert worker.current is None
    assert prod.deploy("one").version == worker.version
    run_id = prod.trigger()
    assert prod.ids(worker.worker_id) == [run_id]


def test_an_environment_for_development_has_no_deployments(prod: Deploys) -> None:
    with pytest.raises(Unprocessable, match="has no deployments"):
        prod.deploy("one", environment="dev")
    with pytest.raises(Unprocessable, match="has no deployments"):
        prod.world.do(deploying.promote, Promotion("dev", "20261124.1"))


def test_without_a_deployment_every_worker_takes_plain_runs(prod: Deploys) -> None:
    old, new = prod.worker("old"), prod.worker("new")
    first, second = prod.trigger(), prod.trigger()
    assert [run.id for run in prod.claim(old, 1)] == [first]
    assert prod.ids(new) == [second]


# ---- which version takes what


def test_plain_runs_start_on_the_current_version_only(prod: Deploys) -> None:
    one, two = prod.deploy("one"), prod.deploy("two")
    old, new, undeployed = prod.worker("one"), prod.worker("two"), prod.worker("three")
    run_id = prod.trigger()
    assert prod.ids(old) == prod.ids(undeployed) == []
    [run] = prod.claim(new)
    assert (run.id, run.version) == (run_id, two.version)
    locked = prod.trigger(version_lock=one.version)
    assert prod.ids(new) == prod.ids(undeployed) == []
    assert prod.ids(old) == [locked]


def test_promoting_moves_runs_that_are_queued(prod: Deploys) -> None:
    prod.deploy("one")
    two = prod.deploy("two", promote=False)
    assert two.status == "PENDING"
    assert two.deployed_at is None
    old, new = prod.worker("one"), prod.worker("two")
    queued = [prod.trigger() for _ in range(3)]
    assert [run.id for run in prod.claim(old, 1)] == queued[:1]
    assert prod.ids(new) == []
    prod.world.wakes.clear()
    promoted = prod.promote(two.version)
    assert {"ready:prod", "front:prod"} <= prod.world.wakes
    assert (promoted.status, promoted.deployed_at) == ("DEPLOYED", prod.world.clock.now)
    assert prod.ids(old) == []
    assert prod.ids(new) == queued[1:]


def test_rolling_back_is_promoting_an_older_version(prod: Deploys) -> None:
    one = prod.deploy("one", task("send", queue="a"), "gone", queues=[QueueSpec("a", 1)])
    prod.deploy("two", task("send", queue="b"), "fresh")
    old, new = (
        prod.worker("one", task("send", queue="a"), "gone"),
        prod.worker("two", task("send", queue="b"), "fresh"),
    )
    assert prod.run(prod.trigger()).queue == "b"
    assert prod.status(prod.trigger("gone")) == "WAITING_FOR_DEPLOY"
    fresh = prod.trigger("fresh")
    prod.promote(one.version)
    assert prod.current().version == one.version
    assert prod.run(prod.trigger()).queue == "a"
    assert prod.status(prod.trigger("fresh")) == "WAITING_FOR_DEPLOY"
    assert prod.ids(new) == []
    assert {run.task for run in prod.claim(old)} == {"send", "gone"}
    assert prod.status(fresh) == "QUEUED"  # it was in the queue before; it starts when its task is back


def test_delayed_runs_take_the_version_that_is_current_when_they_start(prod: Deploys) -> None:
    prod.deploy("one")
    old = prod.worker("one")
    run_id = prod.trigger(delay="1h")
    two = prod.deploy("two")
    new = prod.worker("two")
    prod.world.clock.advance(3_600_000)
    for worker in (old, new):
        prod.world.renew(worker, PROD)
    prod.world.upkeep()
    assert prod.ids(old) == []
    [run] = prod.claim(new)
    assert (run.id, run.version) == (run_id, two.version)


def test_a_retry_stays_on_the_version_that_has_begun_the_run(prod: Deploys) -> None:
    one = prod.deploy("one")
    old = prod.worker("one")
    run_id = prod.trigger()
    [run] = prod.claim(old)
    two = prod.deploy("two")
    new = prod.worker("two")
    prod.world.fail(old, run, 60_000)
    prod.world.clock.advance(60_000)
    for worker in (old, new):
        prod.world.renew(worker, PROD)
    prod.world.upkeep()
    assert prod.ids(new) == []
    [again] = prod.claim(old)
    assert (again.id, again.attempt, again.version) == (run_id, 2, one.version)
    replayed = prod.world.do(operate.replay, operate.Replay(PROD, run_id, {})).id
    assert prod.ids(old) == []
    [repeated] = prod.claim(new)
    assert (repeated.id, repeated.version) == (replayed, two.version)


def test_a_resume_stays_on_the_version_that_has_begun_the_run(prod: Deploys) -> None:
    one = prod.deploy("one")
    old = prod.worker("one")
    run_id = prod.trigger()
    [run] = prod.claim(old)
    prod.world.suspend(old, run, {"on": "time", "dueAt": prod.world.clock.now + 5_000, "wake": "any"})
    prod.deploy("two")
    new = prod.worker("two")
    prod.world.clock.advance(5_000)
    prod.world.upkeep()
    assert prod.ids(new) == []
    [again] = prod.claim(old)
    assert (again.id, again.resumes, again.version) == (run_id, 1, one.version)


def test_what_an_old_version_has_begun_goes_to_the_current_one_when_its_last_worker_is_gone(
    prod: Deploys,
) -> None:
    prod.deploy("one")
    old = prod.worker("one")
    run_id = prod.trigger()
    prod.claim(old)
    locked = prod.trigger(version_lock=prod.current().version)
    two = prod.deploy("two")
    new, undeployed = prod.worker("two"), prod.worker("three")
    assert prod.ids(new) == []
    prod.world.do(claiming.leave, (old, PROD))
    assert prod.ids(undeployed) == []
    [run] = prod.claim(new)
    assert (run.id, run.version) == (run_id, two.version)
    assert prod.status(locked) == "QUEUED"  # who asks for a version by name gets that one


def test_an_awaited_child_runs_on_the_version_of_its_parent(prod: Deploys) -> None:
    one = prod.deploy("one", "parent", "child")
    old = prod.worker("one", "parent", "child")
    prod.trigger("parent")
    [parent] = prod.claim(old)
    two = prod.deploy("two", "parent", "child")
    new = prod.worker("two", "parent", "child")
    awaited = prod.trigger("child", parent_id=parent.id, version_lock=parent.version)
    plain = prod.trigger("child", parent_id=parent.id)
    [on_new] = prod.claim(new)
    [on_old] = prod.claim(old)
    assert (on_old.id, on_old.version) == (awaited, one.version)
    assert (on_new.id, on_new.version) == (plain, two.version)


def test_a_lock_to_a_version_that_there_is_not_is_refused(prod: Deploys) -> None:
    prod.deploy("one")
    with pytest.raises(Unprocessable, match="no such version"):
        prod.trigger(version_lock="20200101.1")


def test_with_a_lock_the_queue_must_be_one_of_that_version(prod: Deploys) -> None:
    specs = [QueueSpec("shared", 2)]
    one = prod.deploy("one", queues=specs)
    two = prod.deploy("two", queues=[*specs, QueueSpec("newer", 2)])
    for version, queue in ((one.version, "shared"), (two.version, "newer"), (one.version, "task/send")):
        assert prod.run(prod.trigger(version_lock=version, queue=queue)).queue == queue
    with pytest.raises(Unprocessable, match="has no such queue") as caught:
        prod.trigger(version_lock=one.version, queue="newer")
    assert caught.value.param == "options.queue.name"


def test_without_a_lock_an_unknown_queue_parks_the_run_until_it_is_there(prod: Deploys) -> None:
    worker = prod.worker("one")
    parked = prod.trigger(queue="bulk")
    delayed = prod.trigger(queue="bulk", delay="1m")
    assert (prod.status(parked), prod.status(delayed)) == ("WAITING_FOR_DEPLOY", "DELAYED")
    prod.world.clock.advance(60_000)
    prod.world.renew(worker, PROD)
    prod.world.upkeep()
    assert prod.status(delayed) == "WAITING_FOR_DEPLOY"
    assert prod.ids(worker) == []
    prod.deploy("two", queues=[QueueSpec("bulk")])
    assert (prod.status(parked), prod.status(delayed)) == ("QUEUED", "QUEUED")
    assert prod.run(parked).queue == "bulk"


# ---- parked runs


def test_a_deployment_puts_the_runs_that_waited_for_its_task_in_the_queue_oldest_first(prod: Deploys) -> None:
    prod.deploy("one", "other")
    parked = []
    for _ in range(5):
        parked.append(prod.trigger(ttl="1h"))
        prod.world.clock.advance(10)
    assert {prod.status(run_id) for run_id in parked} == {"WAITING_FOR_DEPLOY"}
    pending = prod.deploy("two", "other", "send", promote=False)
    worker = prod.worker("two", "other", "send")
    assert {prod.status(run_id) for run_id in parked} == {"WAITING_FOR_DEPLOY"}
    prod.promote(pending.version)
    assert {prod.status(run_id) for run_id in parked} == {"QUEUED"}
    assert prod.run(parked[0]).due_at == prod.world.clock.now + 3_600_000  # its ttl begins now (rule R19)
    assert prod.ids(worker) == parked


def test_a_worker_that_is_not_deployed_changes_nothing_for_plain_runs(prod: Deploys) -> None:
    prod.deploy("one", task("send", queue="a"), queues=[QueueSpec("a", 3)])
    other = prod.register("two", task("send", queue="b"), "extra", queues=[QueueSpec("a", 9)])
    assert prod.run(prod.trigger()).queue == "a"
    assert prod.status(prod.trigger("extra")) == "WAITING_FOR_DEPLOY"
    locked = prod.trigger("extra", version_lock=other.version)
    assert prod.status(locked) == "QUEUED"
    assert prod.ids(other.worker_id) == [locked]
    limits = prod.world.read(lambda tx: tx.all("queues", environment_id=PROD))
    assert [(row["name"], row["concurrency_limit"]) for row in limits] == [("a", 3)]


def test_a_run_that_does_not_fit_its_version_goes_on_with_the_one_that_is_promoted_next(
    prod: Deploys,
) -> None:
    one = prod.deploy("one")
    old = prod.worker("one")
    run_id = prod.trigger()
    [run] = prod.claim(old)
    prod.world.fail(old, run, None, MISMATCH)
    prod.world.upkeep()
    assert prod.status(run_id) == "WAITING_FOR_DEPLOY"
    two = prod.deploy("two")
    new = prod.worker("two")
    assert prod.ids(old) == []  # it did not fit there
    [again] = prod.claim(new)
    assert again.version == two.version
    prod.world.fail(new, again, None, MISMATCH)
    prod.world.upkeep()
    prod.promote(one.version)
    assert prod.ids(old) == [run_id]


def test_a_locked_run_that_does_not_fit_its_own_version_waits_and_is_not_tried_for_ever(
    prod: Deploys,
) -> None:
    one = prod.deploy("one")
    old = prod.worker("one")
    prod.deploy("two")
    run_id = prod.trigger(version_lock=one.version)
    [run] = prod.claim(old)
    prod.world.fail(old, run, None, MISMATCH)
    prod.world.upkeep()
    assert prod.status(run_id) == "WAITING_FOR_DEPLOY"


# ---- external ids


def test_a_run_is_pinned_to_the_deployment_that_others_call_so(prod: Deploys) -> None:
    one = prod.deploy("one", external_id="web-1")
    prod.deploy("two", external_id="web-2")
    old, new = prod.worker("one"), prod.worker("two")
    run_id = prod.trigger(external_deployment=" web-1 ")
    blank = prod.trigger(external_deployment=" ")
    assert prod.run(run_id).version_lock == one.version
    assert prod.ids(new) == [blank]
    assert prod.ids(old) == [run_id]


def test_the_highest_version_of_an_external_id_is_meant_and_a_lock_outranks_it(prod: Deploys) -> None:
    versions = [prod.deploy(str(number), external_id="web").version for number in range(11)]
    assert prod.run(prod.trigger(external_deployment="web")).version_lock == versions[-1]
    locked = prod.trigger(external_deployment="web", version_lock=versions[3])
    assert prod.run(locked).version_lock == versions[3]


def test_a_run_waits_for_a_deployment_that_nobody_knows_and_goes_on_when_it_comes(prod: Deploys) -> None:
    prod.deploy("one")
    run_id = prod.trigger(external_deployment="web-2", ttl="2h")
    later = prod.trigger(external_deployment="web-2", delay="3h")
    assert {prod.status(run_id), prod.status(later)} == {"WAITING_FOR_DEPLOY"}
    prod.world.clock.advance(30 * 60_000)
    prod.world.upkeep()
    two = prod.deploy("two", external_id="web-2", promote=False)
    run = prod.run(run_id)
    assert (str(run.status), run.version_lock) == ("QUEUED", two.version)
    assert run.due_at == prod.world.clock.now + 2 * 3_600_000
    assert prod.status(later) == "DELAYED"
    assert prod.ids(prod.worker("two")) == [run_id]


def test_a_run_whose_deployment_does_not_come_expires(prod: Deploys) -> None:
    prod.deploy("one")
    short = prod.trigger(external_deployment="none", ttl="1m")
    long = prod.trigger(external_deployment="none", ttl="2h")
    prod.world.after(60_000)
    assert (prod.status(short), prod.status(long)) == ("EXPIRED", "WAITING_FOR_DEPLOY")
    assert "EXTERNAL_DEPLOYMENT_NOT_FOUND" in str(prod.run(short).error)
    prod.world.after(59 * 60_000)
    assert prod.status(long) == "EXPIRED"


def test_in_development_an_external_id_is_ignored(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger(external_deployment="web-2")
    assert [run.id for run in world.claim(worker)] == [run_id]


@pytest.mark.parametrize("text", ["x" * 129, "a\x00b"])
def test_an_external_id_that_can_not_be_is_refused(prod: Deploys, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        prod.trigger(external_deployment=text)
    assert caught.value.param == "options.externalDeploymentId"


# ---- reading


def test_deployments_are_listed_newest_first_by_pages(prod: Deploys) -> None:
    made = []
    for number in range(5):
        made.append(prod.deploy(str(number), promote=number == 2).id)
        prod.world.clock.advance(1_000)
    first = prod.page(2)
    second = prod.page(2, first.next)
    third = prod.page(2, second.next)
    listed = [one.id for page in (first, second, third) for one in page.deployments]
    assert listed == made[::-1]
    assert third.next is None
    assert [one.id for one in prod.page(status="DEPLOYED").deployments] == [made[2]]
    since = prod.world.clock.now - 2_000
    assert [one.id for one in prod.page(since=since).deployments] == made[:2:-1]
    assert [one.id for one in prod.page(until=since - 1).deployments] == made[2::-1]
    with pytest.raises(InvalidRequest):
        prod.page(2, "deployment_x")


def test_there_is_no_current_deployment_before_the_first(prod: Deploys) -> None:
    for _ in range(2):
        with pytest.raises(NotFound):
            prod.current()
        prod.deploy("one", promote=False)
    with pytest.raises(NotFound):
        prod.promote("20200101.1")


# ---- races


def test_a_promotion_and_claims_at_the_same_time(prod: Deploys, store_url: str, clock: Clock) -> None:
    """What is claimed after a promotion was answered is of the promoted version, whatever was under way."""
    versions = [prod.deploy("one").version, prod.deploy("two").version]
    workers = {versions[0]: prod.worker("one"), versions[1]: prod.worker("two")}
    for _ in range(200):
        prod.trigger()
    other = open_store(store_url, clock=clock)
    try:
        turns = threading.Barrier(2, timeout=30)
        failures: list[BaseException] = []

        def promote() -> None:
            try:
                for number in range(20):
                    turns.wait()
                    other.transact(deploying.promote, [Promotion(PROD, versions[number % 2])])
                    turns.wait()
            except BaseException as error:
                failures.append(error)
                turns.abort()

        thread = threading.Thread(target=promote)
        thread.start()
        try:
            for number in range(20):
                turns.wait()
                for worker in workers.values():
                    prod.claim(worker, 1)
                turns.wait()
                now, before = versions[number % 2], versions[(number + 1) % 2]
                assert prod.claim(workers[before], 1) == []
                assert [run.version for run in prod.claim(workers[now], 1)] == [now]
        finally:
            thread.join(30)
        assert failures == []
    finally:
        other.close()


def test_the_same_code_deployed_twice_at_once_is_one_deployment(
    prod: Deploys, store_url: str, clock: Clock
) -> None:
    other = open_store(store_url, clock=clock)
    try:
        turns = threading.Barrier(2, timeout=30)
        found: list[Any] = []

        def deploy(store: Any) -> None:
            turns.wait()
            new = NewDeployment(
                environment_id=PROD, fingerprint="one", tasks=[task("send")], external_id="web"
            )
            found.extend(store.transact(deploying.deploy, [new]))

        threads = [threading.Thread(target=deploy, args=(store,)) for store in (prod.store, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(found) == 2
        assert len({one.id for one in found}) == 1
    finally:
        other.close()
