"""
Write the dashboards' JSON from their description: `python -m deploy.grafana`.

`tests/deployment/test_dashboards.py` fails while a file is not what the description says.
"""

import json
from pathlib import Path

from deploy.grafana import messages, orders, workers_and_providers

FOLDER = Path(__file__).parent / "dashboards"
DASHBOARDS = {
    "orders": orders.DASHBOARD,
    "messages": messages.DASHBOARD,
    "workers-and-providers": workers_and_providers.DASHBOARD,
}


def texts() -> dict[Path, str]:
    """Return the files, and what each must contain."""
    return {
        FOLDER / f"{name}.json": json.dumps(dashboard.as_json(), indent=1, ensure_ascii=False) + "\n"
        for name, dashboard in DASHBOARDS.items()
    }


if __name__ == "__main__":
    for path, text in texts().items():
        path.write_text(text)
