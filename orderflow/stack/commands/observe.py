"""
`run.py observe`: Prometheus and Alertmanager with the project's alerts, beside the stack that is running here.

If none is running, it starts one as `run.py up` does. Beside a running stack it is a command of its own: it
continues when the stack stops, which its alerts then report, and finds the processes of the next one.
"""

from collections.abc import Mapping

from orderflow.stack.checkout import state
from orderflow.stack.checkout.folders import StackFolders
from orderflow.stack.commands import runs
from orderflow.stack.problem import Problem
from orderflow.stack.servers.monitoring import Monitoring
from orderflow.stack.supervision.supervisor import Interrupted, State, Supervisor, Watched


def run(folders: StackFolders, caller: Mapping[str, str], start_request: runs.StartRequest) -> int:
    """
    Run both servers until the user stops them, and return the exit code.

    Raises:
        Problem: if one is not installed, does not come up, or already runs in this checkout.
    """
    with state.hold_monitoring(folders):
        monitoring = Monitoring.beside(folders)
        running = runs.wait_until_ready(folders)
        if running is None:
            monitoring.write()
            return runs.stack(folders, caller, start_request, monitoring=monitoring)
        if start_request.port is not None:
            raise Problem(f"A stack is already running here at {running.url}; leave out --port.", exit_code=2)
        monitoring.write()
        return _beside(monitoring, running)


def _beside(monitoring: Monitoring, running: state.Run) -> int:
    supervisor = Supervisor(monitoring.specs(), report=_report)
    try:
        with supervisor:
            supervisor.start_rest()
            print(f"Prometheus and Alertmanager observe the stack at {running.url}:", flush=True)
            print(runs.listed(monitoring.addresses), flush=True)
            print(f"Ctrl-C stops them, not the stack. Logs: {monitoring.folders.logs}", flush=True)
            return supervisor.run_until_interrupted()
    except Interrupted:
        return 0


def _report(watched: Watched) -> None:
    if watched.state is State.RESTARTING:
        print(f"! {watched.spec.name} died (see {watched.spec.log}) and is started again", flush=True)
    elif watched.state is State.GIVEN_UP:
        print(f"! {watched.spec.name} dies again and again and stays down (see {watched.spec.log})", flush=True)
