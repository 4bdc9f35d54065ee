"""`harness agents check`: try an agent with everything that can go right and wrong, and say what to mend."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import Json, names, print_json
from harness.errors import UserError
from harness.visible import for_terminal

if TYPE_CHECKING:
    import docker

    from harness.conformance.check import NotTried, Tried
    from harness.manifests import Agent


def check(
    agent: Annotated[str, typer.Argument(help="A name, or the path of an agent's folder.")],
    only: Annotated[str | None, typer.Option(help="Names of scenarios, to try no others.")] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Write conformance.json and CONFORMANCE.md into the agent's folder.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Read the manifest, build the bundle, make a run for each way it can go, and say what to mend."""
    from harness.conformance.check import to_try, try_agent
    from harness.images.upstream import leave_out_unreachable
    from harness.sandbox.daemon import connect

    chosen = one_agent(agent)
    wanted = names(only, "--only")
    if record and wanted:
        raise UserError("--record is of all scenarios: leave --only out")
    fitting, missing = to_try(chosen)
    if unknown := set(wanted) - {scenario.name for scenario, _, _ in fitting}:
        known = ", ".join(dict.fromkeys(scenario.name for scenario, _, _ in fitting))
        why = next((f", since {each.why}" for each in missing if each.scenario.name in unknown), "")
        raise UserError(f"--only: agent {chosen.name} is not tried with {min(unknown)}{why}; it is with {known}")
    leave_out_unreachable([chosen], [chosen.name])
    if record:
        from harness.conformance.record import check_writable

        check_writable(chosen)
    client = connect()
    fitting = [item for item in fitting if not wanted or item[0].name in wanted]
    tried: list[Tried] = []
    for each in try_agent(client, chosen, fitting, lambda text: typer.echo(text, err=True)):
        tried.append(each)
        if not as_json:
            _print(each)
    if as_json:
        print_json({"agent": chosen.name, "scenarios": [_row(each) for each in tried], "not_tried": _reasons(missing)})
    else:
        _finish(chosen, tried, missing, whole=not wanted)
    if record:
        _record(client, chosen, tried, missing)
    if any(each.problems for each in tried):
        raise typer.Exit(1)


def one_agent(name: str) -> Agent:
    """The one agent of a name or a path. Raises UserError."""
    from harness.manifests import select_agents

    if name == "all":
        raise UserError("one agent at a time: name it, as `harness agents list` shows it")
    return select_agents([name])[0][0]


def _record(client: docker.DockerClient, agent: Agent, tried: list[Tried], missing: list[NotTried]) -> None:
    from harness import machine
    from harness.conformance.record import write_scenarios
    from harness.images import bundle
    from harness.sandbox import daemon

    facts = machine.facts(daemon.facts(client))
    for file in write_scenarios(agent, bundle.find(client, agent), tried, missing, facts):
        typer.echo(f"written: {file}", err=True)


def _print(tried: Tried) -> None:
    row, scenario = tried.row, tried.scenario
    word = "to mend" if tried.problems else "as it should be"
    protocol = tried.protocol or "-"
    print(f"{row['agent_s']:6.1f} s  {scenario.name:<16} {protocol:<6} {row['ended_by']:<17} {word}: {scenario.shows}")
    for problem in tried.problems:
        print(f"          {for_terminal(problem)}")


def _finish(agent: Agent, tried: list[Tried], missing: list[NotTried], whole: bool) -> None:
    bad = [each for each in tried if each.problems]
    if bad and bad[0].output:
        print(f"the end of what it printed in {bad[0].scenario.name}:", *map(for_terminal, bad[0].output), sep="\n  ")
    for reason, count in _reasons(missing).items() if whole else ():
        print(f"not tried: {count} scenarios, for {reason}; agents/README.md says what goes into it")
    if bad:
        print(f"{len(bad)} of {len(tried)} scenarios are to be mended")
    elif not whole:
        print(f"{len(tried)} of {len(tried)} scenarios are as they should be; the others were not tried")
    elif missing:
        print(f"{len(tried)} of {len(tried)} scenarios are as they should be; whether it can succeed was not tried")
    else:
        print(f"{len(tried)} of {len(tried)} scenarios are as they should be: {agent.name} can be used")


def _reasons(missing: list[NotTried]) -> dict[str, int]:
    return Counter(each.why for each in missing)


def _row(tried: Tried) -> dict[str, Any]:
    kept = ("ended_by", "ended_detail", "verdict", "claimed", "claim_message", "exit_code", "calls", "agent_s")
    return {
        "scenario": tried.scenario.name,
        "protocol": tried.protocol,
        **{name: tried.row[name] for name in kept},
        "problems": tried.problems,
        "output": tried.output if tried.problems else [],
    }
