"""`corewrite serve` with a rewriter's process that can be told to fail.

python faulty_server.py CONFIG

Nothing is imported outside of the functions: the rewriter's process, when it starts, imports this file too.
"""

import sys


def main():
    import faulty_worker

    from corewrite.cli.main import app
    from corewrite.serving import process

    process._work = faulty_worker.work
    app(["serve", "--config", sys.argv[1]])


if __name__ == "__main__":
    main()
