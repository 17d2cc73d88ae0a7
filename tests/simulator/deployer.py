"""Somebody who deploys code and promotes versions, in some of the worlds.

It draws from a source of its own: worlds without it go as they went before there was one.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from holdfast.engine.deploy import NewDeployment, Promotion, deploy, promote
from holdfast.model.task import QueueSpec, TaskSpec
from holdfast.stores.base import Tx

if TYPE_CHECKING:
    from simulator.world import World

SHARE = 0.3  # of the worlds
PLACE = "dev"  # where most workers are; in a world with deployments it is not for development


class Deployer:
    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.name = "deployer"
        self.alive = True
        self.frozen = False
        self.random = random.Random(f"deploys of {seed}")
        self.is_there = self.random.random() < SHARE

    def arrive(self) -> None:
        if self.is_there:
            self.world.store.transact(_not_for_development, [None])

    def act(self) -> None:
        """Deploys the code of a worker, or that of nobody, or promotes what was deployed."""
        if not self.is_there or self.random.random() > 0.04:
            return
        deployed = self.world.oracle.now_before.deployed
        if deployed and self.random.random() < 0.4:
            self.world.network.send(self, promote, [Promotion(PLACE, self.random.choice(deployed))])
            return
        workers = [worker for worker in self.world.workers if worker.environment_id == PLACE]
        code = self.random.choice(workers).code if workers else 0
        tasks = self.random.choice(workers).tasks if workers else list(self.world.options.tasks)
        self._deploy(f"code-{code}", tasks, self.random.random() < 0.7)

    def finish(self, fingerprint: str, tasks: list[TaskSpec]) -> None:
        """What is deployed last has all tasks, and a worker."""
        if self.is_there:
            self._deploy(fingerprint, tasks, True)

    def _deploy(self, fingerprint: str, tasks: list[TaskSpec], promoted: bool) -> None:
        queues = self.world.options.other_queues
        if self.world.ending:  # limits are lifted
            queues = tuple(QueueSpec(queue.name) for queue in queues)
        item = NewDeployment(
            environment_id=PLACE,
            fingerprint=fingerprint,
            tasks=tasks,
            queues=queues,
            promote=promoted,
        )
        self.world.call_until_answered(self, deploy, [item])


def _not_for_development(tx: Tx, items: list[None]) -> list[None]:
    tx._connection.select(
        f"update environments set type = 'preview', branch = 'x' where id = '{PLACE}' returning id", {}
    )
    return items
