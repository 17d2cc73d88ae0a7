"""The list of time zones is anybody's."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from server.world import World, ok, refused

pytestmark = pytest.mark.anyio
PATH = "/api/v1/timezones"


async def test_zones_are_told_without_a_credential_and_utc_first(world: World):
    answer = await ok(world.dev.get(PATH, headers={"authorization": ""}))
    zones = answer["timezones"]
    assert zones[0] == "UTC"
    assert {"Europe/London", "America/New_York", "Asia/Tokyo"} <= set(zones)
    assert zones[1:] == sorted(set(zones[1:]))
    for zone in zones:
        ZoneInfo(zone)


async def test_utc_is_left_out_under_all_its_names(world: World):
    zones = (await ok(world.dev.get(f"{PATH}?excludeUtc=true")))["timezones"]
    assert "Europe/London" in zones
    assert not {"UTC", "Etc/UTC", "Zulu"} & set(zones)
    assert (await ok(world.dev.get(f"{PATH}?excludeUtc=false")))["timezones"][0] == "UTC"


async def test_a_wish_that_can_not_be_read_is_refused(world: World):
    await refused(world.dev.get(f"{PATH}?excludeUtc=maybe"), 400, "invalid_request", param="excludeUtc")
