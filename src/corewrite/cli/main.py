"""`corewrite`: the command line."""

import typer

from corewrite.cli import (
    cycle,
    demo,
    doctor,
    eval,
    experiment,
    fusion,
    gate,
    ingest,
    init,
    log,
    model,
    plan,
    registry,
    replay,
    search,
    serve,
    simulate,
    train,
    warm,
)
from corewrite.cli.common import plain_messages, say
from corewrite.cli.cores import share_cores
from corewrite.version import VERSION

app = typer.Typer(
    name="corewrite",
    help="Continuously reward-finetuned LLM query rewriting for multi-stage search.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Examples: `corewrite demo --miniature` · `corewrite train --config corewrite.yaml` · `corewrite cycle run`. "
        "Exit codes: 0 done (gate: promote), 1 failed, 2 wrong usage, 3 gate holds, 4 gate rejects, 5 log lines unusable, "
        "130 stopped by Ctrl-C."
    ),
)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"corewrite {VERSION}")
        raise typer.Exit


@app.callback()
def main(
    ctx: typer.Context,
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Continuously reward-finetuned LLM query rewriting for multi-stage search."""
    share_cores()
    ctx.with_resource(plain_messages())


app.command("demo", epilog=demo.EXAMPLES)(demo.demo)
app.command("init", epilog=init.EXAMPLES)(init.init)
app.command("doctor", epilog=doctor.EXAMPLES)(doctor.doctor)
app.command("simulate", epilog=simulate.EXAMPLES)(simulate.simulate)
app.command("ingest", epilog=ingest.EXAMPLES)(ingest.ingest)
app.command("train", epilog=train.EXAMPLES)(train.train)
app.command("plan", epilog=plan.EXAMPLES)(plan.plan)
app.add_typer(model.app, name="model", epilog=model.EXAMPLES)
app.command("search", epilog=search.EXAMPLES)(search.search)
app.add_typer(log.app, name="log", epilog=log.EXAMPLES)
app.add_typer(cycle.app, name="cycle", epilog=cycle.EXAMPLES)
app.add_typer(gate.app, name="gate", epilog=gate.EXAMPLES)
app.add_typer(eval.app, name="eval", epilog=eval.EXAMPLES)
app.add_typer(experiment.app, name="experiment", epilog=experiment.PLAN_EXAMPLES)
app.command("serve", epilog=serve.SERVE_EXAMPLES)(serve.serve)
app.command("warm", epilog=warm.WARM_EXAMPLES)(warm.warm)
app.command("replay", epilog=replay.REPLAY_EXAMPLES)(replay.replay)
app.add_typer(registry.app, name="registry", epilog=registry.EXAMPLES)
app.add_typer(fusion.app, name="fusion", epilog=fusion.EXAMPLES)
