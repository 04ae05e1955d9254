"""Commands that start processes: the whole stack, one management command, the tests."""

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from orderflow.stack import command_list, sizing
from orderflow.stack.checkout import environment, schema, state
from orderflow.stack.checkout.environment import Given
from orderflow.stack.checkout.folders import StackFolders, servers_folder
from orderflow.stack.ports import choose
from orderflow.stack.problem import Problem
from orderflow.stack.processes import Table
from orderflow.stack.screen import Screen
from orderflow.stack.servers import choice, given
from orderflow.stack.servers.monitoring import Monitoring
from orderflow.stack.supervision.supervisor import Interrupted, State, Supervisor

RUN = "python3 run.py"

MOST_TEST_PROCESSES = 8
"""Each uses two of the 16 numbered databases of the Redis-protocol server."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartRequest:
    """The options of the command line that starts the stack."""

    demo: bool = True
    once: bool = False
    port: int | None = None
    orders: int | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """The servers, ports and environment of one stack. Nothing is running yet."""

    servers: choice.Servers
    table: Table
    managed: Mapping[str, str]

    @classmethod
    def make(cls, folders: StackFolders, caller: Mapping[str, str], start_request: StartRequest) -> "Plan":
        """
        Determine what to start in this checkout, and how.

        Raises:
            Problem: if something that is needed is missing.
        """
        named = Given.of(caller)
        given.check(named)
        secret = environment.load_secrets(folders)
        port = environment.choose_ports(folders, web=start_request.port)
        _rotate_logs(folders)
        place = servers_folder(folders, caller)
        needed = choice.private(place, logs=folders.logs, port=port, secret=secret, given=named)
        managed = environment.managed(folders=folders, secret=secret, port=port, servers=needed.environment)
        managed["DATABASE_SESSIONS"] = caller.get("DATABASE_SESSIONS") or str(sizing.sessions(caller))
        environment.write_push_credentials(folders, f"{managed['FCM_API_BASE']}/token")
        environment.write_sandbox_password(folders, managed["SANDBOX_PASSWORD"])
        table = Table(
            folders=folders,
            environment=environment.base(caller) | managed,
            port=port,
            servers=tuple(spec.name for spec in needed.specs),
            migrated=bool(needed.postgres and needed.postgres.exists() and schema.is_current(folders)),
            orders_come_first=start_request.demo,
        )
        return cls(needed, table, managed)


def stack(
    folders: StackFolders,
    caller: Mapping[str, str],
    start_request: StartRequest,
    *,
    monitoring: Monitoring | None = None,
) -> int:
    """
    Run everything until the user stops it, or with `--once` until the demo has ended; beside it `monitoring`.

    Raises:
        Problem: if the stack does not come up, or loses a server.
    """
    started_at = environment.called_at(caller)
    with state.hold(folders, state.STACK):
        run = state.Run(pid=os.getpid(), what=state.STACK, started_at=started_at)
        screen = Screen(folders, run)
        plan = Plan.make(folders, caller, start_request)
        screen.print_line(f"OrderFlow on {plan.servers.label}")
        screen.update(environment=dict(plan.managed), url=plan.managed["ORDERFLOW_WEB_URL"])
        watching = monitoring.specs(after=("web",)) if monitoring else []
        supervisor = Supervisor([*plan.servers.specs, *plan.table.specs(), *watching], report=screen.on_change)
        try:
            with screen.timed_shutdown(), supervisor:
                try:
                    addresses = _addresses(plan.managed) | (monitoring.addresses if monitoring else {})
                    return _serve(supervisor, screen, plan, start_request, addresses)
                finally:
                    screen.stopping()
        except Interrupted:
            return 130 if start_request.once else 0


def _serve(
    supervisor: Supervisor,
    screen: Screen,
    plan: Plan,
    start_request: StartRequest,
    addresses: Mapping[str, str],
) -> int:
    supervisor.start()
    if plan.servers.postgres:
        schema.remember(plan.table.folders)
    code = 0
    if start_request.demo:
        # The remaining processes start while the first orders are processed.
        screen.ready("READY for orders")
        code = _demo(supervisor, screen, plan, start_request)
    supervisor.start_rest()
    down = [name for name, watched in supervisor.watched.items() if watched.state is State.GIVEN_UP]
    if start_request.once:
        return code or len(down)
    if start_request.demo:
        screen.print_line(f"The demo ended with exit code {code}." if code else "Everything is up.")
    else:
        screen.ready("READY")
        screen.print_line(listed(addresses))
    screen.print_line(f"Ctrl-C or `{RUN} down` stops it. Logs: {plan.table.folders.logs}")
    return supervisor.run_until_interrupted()


def _demo(supervisor: Supervisor, screen: Screen, plan: Plan, start_request: StartRequest) -> int:
    # Checking the settings would take a third of a second; the step `admin` does it.
    command = [sys.executable, "manage.py", "demo", "--skip-checks"]
    if start_request.orders is not None:
        command += ["--orders", str(start_request.orders)]
    started = {"ORDERFLOW_STARTED_AT": repr(screen.started_at)}
    screen.hold()
    try:
        return supervisor.run_foreground(
            command,
            environment={**plan.table.environment, **started},
            cwd=plan.table.folders.root,
            owns_interrupt=False,
        )
    finally:
        screen.release()


def manage(folders: StackFolders, caller: Mapping[str, str], words: Sequence[str]) -> int:
    """
    Run a management command against the running stack, or with only the servers while the command runs.

    Raises:
        Problem: if another command holds the servers, or they do not come up.
    """
    command = [sys.executable, str(folders.root / "manage.py"), *words]
    folder = environment.called_from(caller)
    if words[0] == "help" or {"-h", "--help"} & set(words):
        os.execve(command[0], command, environment.base(caller) | environment.PLACEHOLDERS)  # noqa: S606
    running = wait_until_ready(folders)
    if running is None and words[0] in command_list.NEED_A_STACK:
        _refuse_private_servers(words[0], Given.of(caller))
    if words[0] == "migrate":
        schema.forget(folders)
    if running is not None:
        _refuse_other_servers(running, caller)
        os.chdir(folder)
        os.execve(command[0], command, environment.base(caller) | running.environment)  # noqa: S606
    with contextlib.ExitStack() as context:
        context.enter_context(state.hold(folders, f"{RUN} {words[0]}"))
        state.write(folders, state.Run(pid=os.getpid(), what=f"{RUN} {words[0]}", started_at=time.time()))
        plan = Plan.make(folders, caller, StartRequest())
        database = plan.servers.postgres
        steps = [plan.table.migrate(), plan.table.admin()] if database and not database.exists() else []
        supervisor = context.enter_context(Supervisor([*plan.servers.specs, *steps]))
        supervisor.start()
        path = dict(plan.table.environment)
        if database:
            # Last in PATH, for `dbshell`: the wheel contains its own psql.
            path["PATH"] = os.pathsep.join(filter(None, (path.get("PATH"), str(database.program.path.parent))))
        return supervisor.run_foreground(command, environment=path, cwd=folder, owns_interrupt=True)


def _refuse_private_servers(word: str, named: Given) -> None:
    """Refuse a command whose output would describe servers that were started only for it."""
    if named.needs_postgres or named.needs_valkey:
        raise Problem(
            f"Nothing is running here, so there is nothing that `{word}` could inspect or work with. "
            f"Start everything with: {RUN}\n"
            "To use a stack elsewhere, set DATABASE_URL, BROKER_URL and REDIS_URL together."
        )


def _refuse_other_servers(running: state.Run, caller: Mapping[str, str]) -> None:
    """Refuse to use the stack's servers if the caller's environment names others."""
    names = ("DATABASE_URL", "BROKER_URL", "REDIS_URL")
    if others := [name for name in names if caller.get(name) and caller[name] != running.environment.get(name)]:
        raise Problem(
            f"{' and '.join(others)} in your environment differs from what the running stack uses. "
            f"Unset it to work with the stack, or stop the stack first: {RUN} down"
        )


def wait_until_ready(folders: StackFolders, patience: float = 60.0) -> state.Run | None:
    """
    Return the running stack, after waiting until it is ready; None if nothing is running.

    Raises:
        Problem: if something else is running, or it does not become ready.
    """
    end = time.monotonic() + patience
    while True:
        run = state.running(folders)
        if run is None or run.ready:
            return run
        if time.monotonic() > end or run.what not in (state.STACK, state.JUST_BEGUN):
            raise state.in_use(run)
        time.sleep(0.1)


def tests(folders: StackFolders, caller: Mapping[str, str], arguments: Sequence[str]) -> int:
    """
    Run pytest with throwaway servers and return its exit code.

    Servers named in the environment are not used: tests must not touch data that matters.

    Raises:
        Problem: if the servers do not come up.
    """
    folders.prepare()
    caller = {
        name: value for name, value in caller.items() if name not in ("DATABASE_URL", "BROKER_URL", "REDIS_URL")
    }
    with servers_folder(folders, caller).throwaway() as place:
        port = {"postgres": choose()}
        port["valkey"] = choose(taken=port.values())
        needed = choice.private(
            place,
            logs=place.path,
            port=port,
            secret=environment.make_secrets(),
            given=Given.of(caller),
            durable=False,
        )
        settings = {
            **needed.environment,
            "SECRET_KEY": environment.make_secrets()["django"],
            "ORDERFLOW_ENV": "test",
            "ALLOWED_HOSTS": "127.0.0.1,localhost,testserver",
        }
        with Supervisor(needed.specs) as supervisor:
            supervisor.start()
            return supervisor.run_foreground(
                [sys.executable, "-m", "pytest", *_parallel(arguments), *arguments],
                environment=environment.base(caller) | settings,
                cwd=folders.root,
                owns_interrupt=True,
            )


def _parallel(arguments: Sequence[str]) -> Sequence[str]:
    """Use one test process per processor, unless particular tests or a number of processes are given."""
    named = any(Path(argument.partition("::")[0]).exists() for argument in arguments)
    if named or any(argument.startswith("-n") for argument in arguments):
        return ()
    workers = min(os.cpu_count() or 1, MOST_TEST_PROCESSES)
    # Not ordered by size, as xdist would: `tests.parallel` starts the longest first.
    return ("-n", str(workers), "--dist", "loadscope", "--no-loadscope-reorder")


def _rotate_logs(folders: StackFolders) -> None:
    for log in folders.logs.glob("*.log"):
        log.replace(log.with_suffix(".log.1"))


def _addresses(managed: Mapping[str, str]) -> dict[str, str]:
    web = managed["ORDERFLOW_WEB_URL"]
    admin = f"{managed['ORDERFLOW_ADMIN_USER']} / {managed['ORDERFLOW_ADMIN_PASSWORD']}"
    return {
        "API": f"{web}/api/v1/docs",
        "admin": f"{web}/admin/   {admin}",
        "Flower": f"{managed['FLOWER_URL']}   {managed['FLOWER_BASIC_AUTH'].replace(':', ' / ')}",
        "mailbox": f"{managed['SANDBOX_URL']}   sandbox / {managed['SANDBOX_PASSWORD']}",
    }


def listed(addresses: Mapping[str, str]) -> str:
    """Return one line for each address, with its name."""
    width = max(map(len, addresses))
    return "\n".join(f"  {name:{width}}  {value}" for name, value in addresses.items())
