"""All sandbox servers, started once and reset before every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orderflow.sandbox.launch import Sandbox, World


@pytest.fixture(scope="session")
def running_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("sandbox")) as world:
        yield world


@pytest.fixture
def world(running_world: World) -> World:
    running_world.clear()
    return running_world


@pytest.fixture
def payments(running_world: World) -> Sandbox:
    running_world.payments.clear()
    return running_world.payments


@pytest.fixture
def warehouse(running_world: World) -> Sandbox:
    running_world.warehouse.clear()
    return running_world.warehouse


@pytest.fixture
def smtp(running_world: World) -> Sandbox:
    running_world.smtp.clear()
    return running_world.smtp


@pytest.fixture
def sms(running_world: World) -> Sandbox:
    running_world.sms.clear()
    return running_world.sms


@pytest.fixture
def push(running_world: World) -> Sandbox:
    running_world.push.clear()
    return running_world.push
