"""`corewrite registry`."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from corewrite.cli.common import Exit, open_registry, print_json, reported_errors, say, visible

if TYPE_CHECKING:
    from corewrite.registry import Artifact, Champion, Decision, Kind, Registry

EXAMPLES = (
    "Examples: `corewrite registry list` · `corewrite registry show 3fa9c1 --run runs/mine` · "
    "`corewrite registry rollback --reason 'give-up rose'` · `corewrite registry gc --yes`. "
    "A hash may be cut to its first 6 digits or more."
)

app = typer.Typer(help="Look at artifacts and decisions, and change what is in production by hand.", no_args_is_help=True)

_RUN = typer.Option(Path("runs/demo"), help="Run folder with the registry.")
_JSON = typer.Option(False, "--json", help="Print JSON.")
_REASON = typer.Option(help="Why, in words; stays in the log for ever.")
_EXPECTED = typer.Option(None, help="Do it only if the champion is this version; default: the one there is.")


@app.command("list", epilog="Example: `corewrite registry list --run runs/mine --json`")
def list_(run: Path = _RUN, as_json: bool = _JSON) -> None:
    """List the artifacts, oldest first: `*` is part of the champion, `Q` is in quarantine."""
    with reported_errors():
        opened = open_registry(run)
        champion, rows = opened.champion(), _rows(opened)
    if as_json:
        print_json({"champion": champion and asdict(champion), "artifacts": rows})
        return
    say(_champion_line(champion))
    for row in rows:
        mark = ("*" if row["champion"] else " ") + ("Q" if row["quarantined"] else " ")
        about = f"{row['kind']:<9} {row['hash'][:12]}  {_bytes(row['size']):>9}  {row['created']}"
        say(f"{mark} {about}  {row['decisions']} decisions")


@app.command(
    epilog="Examples: `corewrite registry show` · `corewrite registry show 3fa9c1` · `corewrite registry show --decision 7`"
)
def show(
    hash: str | None = typer.Argument(None, help="An artifact; default: the champion and the whole log."),
    decision: int | None = typer.Option(None, min=1, help="One decision by its number, with its evidence."),
    run: Path = _RUN,
    as_json: bool = _JSON,
) -> None:
    """Show the champion with every decision, one artifact with the decisions about it, or one decision."""
    if hash is not None and decision is not None:
        raise typer.BadParameter("give a hash or --decision, not both")
    with reported_errors():
        opened = open_registry(run)
        log = opened.decisions()
        if decision is not None:
            if decision > len(log):
                raise ValueError(f"there is no decision {decision}, the log ends with {len(log)}")
            _print_decision(log[decision - 1], as_json)
        elif hash is not None:
            _print_artifact(opened.find(hash), log, as_json)
        else:
            champion = opened.champion()
            if as_json:
                print_json({"champion": champion and asdict(champion), "decisions": [asdict(d) for d in log]})
                return
            say(_champion_line(champion))
            _print_log(log)


@app.command(
    epilog="Example: `corewrite registry promote 3fa9c1 --relevance 77ab02 --reason 'gate was down' --by 'Ada Lovelace'`"
)
def promote(
    policy: str = typer.Argument(help="Hash of the rewriter."),
    relevance: str | None = typer.Option(None, help="Hash of the relevance model; default: the champion's."),
    spec: str | None = typer.Option(None, help="Hash of the fusion spec; default: the champion's."),
    reason: str = _REASON,
    by: str = typer.Option(help="Name of the person who takes the responsibility; stays in the log for ever."),
    expected: int | None = _EXPECTED,
    run: Path = _RUN,
    as_json: bool = _JSON,
) -> None:
    """Make a candidate the champion by hand: the override of the gate. What is in quarantine stays out."""
    from corewrite.registry import Candidate

    if not by.strip():
        raise typer.BadParameter("a name is needed", param_hint="--by")
    with reported_errors():
        opened = open_registry(run)
        champion = opened.champion()
        candidate = Candidate(
            opened.find(policy, "policy").hash,
            _or_champions(opened, relevance, "relevance", champion),
            _or_champions(opened, spec, "spec", champion),
        )
        seen = champion.version if expected is None and champion is not None else expected
        made = opened.promote(candidate, expected=seen, reason=reason, evidence={"override": True, "by": by.strip()})
        _print_decision(made, as_json)


@app.command(epilog="Example: `corewrite registry rollback --reason 'give-up rose by 4 %' --run runs/mine`")
def rollback(reason: str = _REASON, expected: int | None = _EXPECTED, run: Path = _RUN, as_json: bool = _JSON) -> None:
    """Put the champion before this one back, at once; doing it again goes back further."""
    with reported_errors():
        opened = open_registry(run)
        if (champion := opened.champion()) is None:
            raise ValueError("there is no champion to roll back: promote a candidate first")
        made = opened.rollback(expected=champion.version if expected is None else expected, reason=reason)
        _print_decision(made, as_json)


@app.command(epilog="Example: `corewrite registry quarantine 3fa9c1 --reason 'repeats names from the log'`")
def quarantine(
    hash: str = typer.Argument(help="The artifact."),
    kind: str | None = typer.Option(None, help="policy, relevance or spec; needed where several have this hash."),
    reason: str = _REASON,
    run: Path = _RUN,
    as_json: bool = _JSON,
) -> None:
    """Bar an artifact from ever being promoted or rolled back to."""
    with reported_errors():
        opened = open_registry(run)
        artifact = opened.find(hash, kind)  # type: ignore[arg-type]  # it refuses an unknown kind
        _print_decision(opened.quarantine(artifact.kind, artifact.hash, reason), as_json)


@app.command(epilog="Examples: `corewrite registry verify` · `corewrite registry verify 3fa9c1 --run runs/mine --json`")
def verify(
    hash: str | None = typer.Argument(None, help="One artifact; default: all, and what lies beside them."),
    run: Path = _RUN,
    as_json: bool = _JSON,
) -> None:
    """Hash the content again. Exit code 1: something is damaged, missing or not registered."""
    from corewrite.registry import Finding, RegistryError

    with reported_errors():
        opened = open_registry(run)
        if hash is None:
            findings = opened.verify_all()
        else:
            artifact, findings = opened.find(hash), []
            try:
                opened.verify(artifact.kind, artifact.hash)
            except RegistryError as error:
                findings = [Finding(artifact.kind, artifact.hash, str(error))]
    if as_json:
        print_json({"findings": [asdict(f) for f in findings]})
    else:
        for f in findings:
            say(f"{f.kind} {f.hash[:12]}: {f.problem}", fg="red")
        say(f"{len(findings)} findings" if findings else "all content matches its hash")
    if findings:
        raise typer.Exit(Exit.FAILED)


@app.command(epilog="Examples: `corewrite registry gc` · `corewrite registry gc --keep 10 --yes --run runs/mine`")
def gc(
    keep: int = typer.Option(5, min=2, help="Champions to keep, the present one among them."),
    yes: bool = typer.Option(False, "--yes", help="Remove it; default: only print what would go."),
    run: Path = _RUN,
    as_json: bool = _JSON,
) -> None:
    """Remove content that nothing needs any more, and what killed processes left; decisions stay for ever."""
    with reported_errors():
        opened = open_registry(run)
        found = opened.gc(keep=keep) if yes else opened.garbage(keep=keep)
    size = sum(g.size for g in found)
    if as_json:
        print_json({"removed": yes, "bytes": size, "garbage": [asdict(g) for g in found]})
        return
    for g in found:
        say(f"{g.kind or 'staging':<9} {g.name[:12]}  {_bytes(g.size):>9}  {g.reason}")
    what = f"{len(found)} entries, {_bytes(size)}"
    say(f"removed {what}" if yes else f"would remove {what}" + ("; --yes does it" if found else ""))


@app.command(epilog="Example: `corewrite registry export --mlflow http://localhost:5000 --run runs/mine`")
def export(mlflow: str = typer.Option(help="MLflow's tracking URI."), run: Path = _RUN, as_json: bool = _JSON) -> None:
    """Copy decisions, their evidence and the artifacts' metadata to MLflow; what is there already is left alone."""
    from corewrite.registry.mlflow_export import export_to_mlflow

    with reported_errors():
        opened = open_registry(run)
        written = export_to_mlflow(opened, mlflow)
    if as_json:
        print_json({"runs": written})
    else:
        say(f"{written} new runs in {mlflow}")


def _rows(registry: "Registry") -> list[dict[str, Any]]:
    from corewrite.registry.content import size

    champion, log = registry.champion(), registry.decisions()
    count = Counter(item for d in log for item in d.hashes.items())
    barred = {d.quarantined for d in log}
    return [
        {
            "kind": a.kind,
            "hash": a.hash,
            "champion": champion is not None and champion.hashes[a.kind] == a.hash,
            "quarantined": (a.kind, a.hash) in barred,
            "size": size(registry.root / "artifacts" / a.kind / a.hash),
            "created": a.created,
            "decisions": count[a.kind, a.hash],
        }
        for a in registry.artifacts()
    ]


def _or_champions(registry: "Registry", prefix: str | None, kind: "Kind", champion: "Champion | None") -> str:
    if prefix is not None:
        return registry.find(prefix, kind).hash
    if champion is None:
        raise ValueError(f"there is no champion whose {kind} could stay: name one with --{kind}")
    return champion.hashes[kind]


def _champion_line(champion: "Champion | None") -> str:
    if champion is None:
        return "champion  none"
    return f"champion  version {champion.version}, " + ", ".join(f"{kind} {h[:12]}" for kind, h in champion.hashes.items())


def _print_log(log: "list[Decision]") -> None:
    for d in log:
        about = d.hashes.get("policy") or next(iter(d.hashes.values()))
        say(f"{d.number:>4}  {d.time}  {d.verdict:<10} {about[:12]}  {visible(d.reason)}")


def _print_decision(decision: "Decision", as_json: bool) -> None:
    if as_json:
        print_json(asdict(decision))
        return
    _print_log([decision])
    for kind, content in decision.hashes.items():
        say(f"      {kind:<9} {content}")
    say(f"      previous  {decision.previous}")
    say(f"      evidence  {decision.evidence}")


def _print_artifact(artifact: "Artifact", log: "list[Decision]", as_json: bool) -> None:
    about = [d for d in log if d.hashes.get(artifact.kind) == artifact.hash]
    if as_json:
        print_json({**asdict(artifact), "decisions": [asdict(d) for d in about]})
        return
    say(f"{artifact.kind} {artifact.hash}")
    say(f"created   {artifact.created}")
    if artifact.collected is not None:
        say(f"collected {artifact.collected}")
    for name, content in artifact.files.items():
        say(f"file      {content[:12]}  {name}")
    say(f"metadata  {artifact.metadata}")
    _print_log(about)


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
