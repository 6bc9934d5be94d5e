"""`corewrite serve` with a rewriter's process that can be told to fail and, where COREWRITE_RELEVANCE is set, a model server.

python faulty_server.py CONFIG

Nothing is imported outside of the functions: the rewriter's process, when it starts, imports this file too.
"""

import os
import sys


def with_model_server(catalogue, dense, spec):
    from corewrite.relevance.backends import KServeScorer, NaNOnFailure
    from corewrite.search import Cascade
    from corewrite.search.embedded import embedded_cascade

    made = embedded_cascade(catalogue, dense, spec)
    scorer = KServeScorer(catalogue, os.environ["COREWRITE_RELEVANCE"], "m", "1", timeout=0.2, retries=1)
    return Cascade(catalogue, made._engine, {**made.signals, "relevance": NaNOnFailure(scorer)}, dense, spec)


def main():
    import faulty_worker

    from corewrite.cli.main import app
    from corewrite.serving import process, versions

    process._work = faulty_worker.work
    if "COREWRITE_RELEVANCE" in os.environ:
        versions.embedded_cascade = with_model_server
    app(["serve", "--config", sys.argv[1]])


if __name__ == "__main__":
    main()
