"""Where Prometheus finds the processes of a stack."""

import json

from orderflow.stack import scraping
from orderflow.stack.checkout.environment import SANDBOX
from orderflow.stack.processes import Table

MAIN = {"relay", "web", "beat", "email", "sms", "push", "jobs"}


def listed(folder):
    return {file.stem: json.loads(file.read_text()) for file in folder.glob("*.json")}


def test_a_process_has_a_port_of_its_own_and_keeps_its_name(tmp_path):
    scraping.begin(tmp_path)
    ports = {
        name: scraping.announce(tmp_path, name, job=scraping.PROCESSES)
        for name in ("orders", "orders-2", "web")
    }
    assert len(set(ports.values())) == 3

    again = scraping.announce(tmp_path, "orders", job=scraping.PROCESSES)

    assert listed(tmp_path)["orders"] == [
        {
            "targets": [f"127.0.0.1:{again}"],
            "labels": {"job": "orderflow-processes", "instance": "orders"},
        }
    ]
    scraping.begin(tmp_path)
    assert listed(tmp_path) == {}, "a new stack begins without those of the last one"


def test_every_main_process_is_listed_when_it_starts_and_gets_the_port_that_is_listed(
    stack_folders, monkeypatch
):
    started = {}
    monkeypatch.setattr(
        "orderflow.stack.supervision.children.start",
        lambda command, *, environment, log, cwd: started.update({log.stem: environment}),
    )
    (stack_folders.targets).mkdir()
    (stack_folders.targets / "left-by-the-last-stack.json").write_text("[]")
    port = dict.fromkeys(("web", "flower", "metrics", *SANDBOX), 1)

    specs = Table(folders=stack_folders, environment={"METRICS_PORT": "of the caller"}, port=port).specs()
    assert listed(stack_folders.targets) == {}
    for spec in specs:
        spec.start()

    found = listed(stack_folders.targets)
    assert found.keys() >= MAIN | {"orders", "metrics"}
    assert not found.keys() & {"migrate", "admin", "flower", "sandbox-payments"}
    for name, [target] in found.items():
        given = "1" if name == "metrics" else started[name]["METRICS_PORT"]
        assert target["targets"] == [f"127.0.0.1:{given}"]
        assert target["labels"]["job"] == ("orderflow" if name == "metrics" else "orderflow-processes")
