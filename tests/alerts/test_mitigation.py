"""The commands of runbooks: found in their form, run as they are meant."""

import pytest

from orderflow.alerts import catalogue
from orderflow.alerts.matrix import mitigation
from orderflow.alerts.matrix.mitigation import NotPossible

RUNBOOK = """\
# RelayGone

## Diagnosis

```sh
python3 run.py outbox_status
```

## Mitigation

Start it again:

```sh
docker compose up -d worker-relay beat
# then see
python3 run.py verify --repair --apply \\
    --reason "the relay was gone"
```

```
not a command
```

## Afterwards

```sh
python3 run.py verify
```
"""


def test_only_the_commands_of_the_mitigation_are_run(tmp_path):
    (tmp_path / "RelayGone.md").write_text(RUNBOOK)
    assert [line.split() for line in mitigation.commands("RelayGone", folder=tmp_path)] == [
        ["docker", "compose", "up", "-d", "worker-relay", "beat"],
        ["python3", "run.py", "verify", "--repair", "--apply", "--reason", '"the', "relay", "was", 'gone"'],
    ]


@pytest.mark.parametrize("text", ["# RelayGone\n", RUNBOOK.replace("sh\n", "\n")])
def test_a_runbook_without_commands_is_an_error(tmp_path, text):
    (tmp_path / "RelayGone.md").write_text(text)
    with pytest.raises(NotPossible, match="has no commands"):
        mitigation.commands("RelayGone", folder=tmp_path)


def test_a_missing_runbook_is_an_error(tmp_path):
    with pytest.raises(NotPossible, match="has no runbook"):
        mitigation.commands("RelayGone", folder=tmp_path)


@pytest.mark.parametrize("alert", catalogue.NAMES)
def test_each_alert_has_a_runbook_with_commands_that_can_be_run(alert):
    commands = mitigation.commands(alert)
    assert commands
    assert all(mitigation.is_possible(command) for command in commands), commands


def test_compose_starts_the_services_that_are_named_or_all():
    started = []
    for command in ("docker compose up -d worker-relay beat", "docker compose up -d"):
        mitigation.run(command, environment={}, start=started.append)
    assert started == [["worker-relay", "beat"], []]


@pytest.mark.parametrize("command", ["rm -rf /", "docker compose down", "psql -c 'select 1'", "python3 x.py"])
def test_other_commands_are_refused(command):
    with pytest.raises(NotPossible, match="cannot run"):
        mitigation.run(command, environment={}, start=pytest.fail)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_command_that_was_called_incorrectly_is_an_error():
    from tests.processes import environment

    with pytest.raises(NotPossible, match="exits with 2"):
        mitigation.run("python3 run.py verify --apply", environment=environment(), start=pytest.fail)
