"""Routes are found as they were declared: fixed words first, names as they were sent, other methods by the framework."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.server import ENDPOINTS
from holdfast.server.dispatch import Segment
from server.world import World, refused

pytestmark = pytest.mark.anyio


def tree(*paths: str) -> Segment:
    made = Segment()
    for path in paths:
        served: Any = path
        made.add(path, "GET", served)
    return made


@pytest.mark.parametrize(
    ("path", "found", "parameters"),
    [
        ("/a", "/a", {}),
        ("/a/b", "/a/b", {}),
        ("/a/c", "/a/{x}", {"x": "c"}),
        ("/a/b/z", "/a/{x}/z", {"x": "b"}),  # the fixed word leads nowhere
        ("/a/b%2Fc", "/a/{x}", {"x": "b%2Fc"}),
        ("/a/{x}", "/a/{x}", {"x": "{x}"}),
    ],
)
def test_a_path_finds_its_route(path: str, found: str, parameters: dict[str, str]):
    routes = tree("/a", "/a/b", "/a/{x}", "/a/{x}/z")
    assert routes.find(path.split("/"), "GET") == (found, parameters)


@pytest.mark.parametrize("path", ["", "/", "/b", "/a/", "/a//z", "/a/b/c", "a", "//a"])
def test_a_path_that_no_route_has_is_not_found(path: str):
    assert tree("/a", "/a/{x}", "/a/{x}/z").find(path.split("/"), "GET") is None


def test_a_method_that_the_path_has_not_is_not_found():
    assert tree("/a").find(["", "a"], "POST") is None


def test_one_place_of_a_path_has_one_name():
    with pytest.raises(ValueError, match="called"):
        tree("/a/{x}", "/a/{y}/z")


def test_every_route_finds_itself():
    routes = Segment()
    for endpoint in ENDPOINTS:
        served: Any = endpoint
        routes.add(endpoint.path, endpoint.method, served)
    for endpoint in ENDPOINTS:
        found = routes.find(endpoint.path.split("/"), endpoint.method)
        assert found is not None
        assert found[0] is endpoint


@pytest.mark.parametrize("method", ["DELETE", "PATCH"])
async def test_a_wrong_method_is_told_which_there_are(world: World, method: str):
    answer = await world.dev.request(method, "/api/v1/runs/run_x/metadata")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, PUT"


async def test_a_head_is_answered_as_a_get_without_its_body(world: World):
    answer = await world.dev.head("/api/v1/runs")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_an_unknown_path_is_a_json_404(world: World):
    await refused(world.dev.get("/api/v1/runs/run_x/nothing"), 404, "not_found")
