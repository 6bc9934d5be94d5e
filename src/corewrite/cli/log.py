"""`corewrite log`."""

from dataclasses import asdict
from pathlib import Path

import typer

from corewrite.cli.common import print_json, progress_console, reported_errors, say

app = typer.Typer(help="Keep the log of what was served.", no_args_is_help=True)

EXAMPLES = (
    "Examples: `corewrite log pack served/2026-11-25 --out logs/2026-w48/tuesday.parquet` (every night: all commands read it "
    "as they read the lines) · `corewrite log pack served --out week.parquet --remove --json`"
)


@app.command(
    epilog="Example: `corewrite log keys secrets`, then `serve.log.seal_to: secrets/NAME.public` and `privacy.keys: secrets`"
)
def keys(
    folder: Path = typer.Argument(help="Where the two files go; keep the private one where the cycle runs, and nowhere else."),
    as_json: bool = typer.Option(False, "--json", help="Print the files as JSON."),
) -> None:
    """Make a pair of keys: a server seals users' texts to the public one, the cycle opens them with the private one."""
    from corewrite.logs.sealing import make_keys

    with reported_errors():
        public, private = make_keys(folder)
    if as_json:
        print_json({"public": str(public), "private": str(private)})
    else:
        say(f"public   {public}", f"private  {private}")


@app.command(epilog=EXAMPLES)
def pack(
    log: Path = typer.Argument(help="A log: a file, or a folder of them. Leave out the file that is still being written."),
    out: Path = typer.Option(help="The Parquet file."),
    remove: bool = typer.Option(False, help="Remove the files once the packed one is on the disk and holds every line."),
    as_json: bool = typer.Option(False, "--json", help="Print what was done as JSON."),
) -> None:
    """Pack a log into one Parquet file; no line is lost."""
    from corewrite.logs.files import LogError, log_files, log_lines
    from corewrite.logs.pack import pack_log
    from corewrite.report.progress import ProgressSteps

    with reported_errors():
        if not log.exists():
            raise LogError(f"{log}: no such file or folder")
        files = [f for f in log_files(log) if f.resolve() != out.resolve()]
        with ProgressSteps(progress_console(quiet=as_json)).step("pack the log"):
            packed = pack_log(files, out)
            if remove:
                if (found := sum(1 for _ in log_lines(out))) != packed.lines:
                    raise LogError(f"{out} holds {found} lines, {packed.lines} were read: nothing is removed")
                for file in files:
                    file.unlink()
    if as_json:
        print_json(asdict(packed))
    else:
        say(
            f"{packed.lines} lines of {packed.files} files ({packed.searches} searches, {packed.events} events, "
            f"{packed.others} others): {packed.bytes_before / 2**20:.1f} MiB became {packed.bytes_after / 2**20:.1f}"
        )
