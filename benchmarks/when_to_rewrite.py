"""When does a rewrite pay? Its expected log R before it is decoded, how well calibrated, and what leaving searches alone costs.

    python benchmarks/when_to_rewrite.py [--seeds 0 1 2] [--platforms runs/launches] [--policies DIR] [--out runs/when]

Gradient-boosted trees predict log R of what a policy serves from what the prompt's forward pass gives anyway: the last hidden
state, the log-probability of the query's own first token and of the most probable one, the entropy, and the lengths of query
and context. Fitted on the training instances of four fifths of the users; the reliability is of the others. Then, on fresh
searches, those of the lowest prediction are left alone, a share at a time, beside the same share at random and by the truth.

Writes benchmarks/results/when_to_rewrite.json, for each seed: `reliability` (tenths of the predictions, predicted and mean log
R), and `left_alone` (`share, ndcg10, harmed` by what decides), where *harmed* is the share that loses 0.05 or more of nDCG@10.
"""

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from setting import FloatArray, platform
from sklearn.ensemble import HistGradientBoostingRegressor

from corewrite.deployment.served import fused_lists, log_rewards, served_rewrites
from corewrite.domain import Query, hash_share
from corewrite.rewriter import Rewriter, load_rewriter
from corewrite.simulation.intents import ndcg10
from corewrite.studies.summary import machine

RESULTS = Path(__file__).parent / "results" / "when_to_rewrite.json"
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
HARM, BATCH, HELD_OUT = 0.05, 256, 0.2


def features(policy: Rewriter, queries: Sequence[Query]) -> FloatArray:
    """What the prompt's forward pass says of each search, float64 [queries, hidden size + 8]."""
    prompts = [policy.template.encode(q) for q in queries]
    own = [policy.template.encode_target(q.text)[0] for q in queries]
    found: list[FloatArray] = [np.zeros(0)] * len(queries)
    order = sorted(range(len(queries)), key=lambda i: len(prompts[i]))
    for part in (order[s : s + BATCH] for s in range(0, len(order), BATCH)):
        tokens = torch.zeros((len(part), len(prompts[part[-1]])), dtype=torch.long)
        for k, i in enumerate(part):
            tokens[k, : len(prompts[i])] = torch.tensor(prompts[i])
        rows, last = torch.arange(len(part)), torch.tensor([len(prompts[i]) - 1 for i in part])
        with torch.inference_mode():  # what is padded comes after: a causal model does not see it
            out = policy.model(input_ids=tokens, output_hidden_states=True)
        hidden, log_probs = out.hidden_states[-1][rows, last], out.logits[rows, last].log_softmax(-1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        for k, i in enumerate(part):
            query, words = queries[i], len(queries[i].text.split())
            said = [float(log_probs[k, own[i]]), float(log_probs[k].max()), float(entropy[k]), words, len(query.text)]
            said += [len(prompts[i]), len(query.context.titles), len(query.context.queries)]
            found[i] = np.concatenate([hidden[k].double().numpy(), said])
    return np.array(found)


def reliability(predicted: FloatArray, log_reward: FloatArray) -> list[dict[str, float]]:
    """Tenths of the predictions, the lowest first: mean predicted and mean log R."""
    parts = np.array_split(np.argsort(predicted, kind="stable"), 10)
    return [{"predicted": float(predicted[p].mean()), "log_reward": float(log_reward[p].mean())} for p in parts]


def left_alone(score: FloatArray, without: FloatArray, with_: FloatArray) -> list[dict[str, float]]:
    """nDCG@10 and harm where the searches of the lowest score are left alone, a share at a time."""
    order, rows = np.argsort(score, kind="stable"), []
    for share in SHARES:
        served = with_.copy()
        alone = order[: int(share * len(order))]
        served[alone] = without[alone]
        rows.append({"share": share, "ndcg10": float(served.mean()), "harmed": float((served <= without - HARM).mean())})
    return rows


def study(seed: int, platforms: Path, policy: Rewriter) -> dict[str, Any]:
    """Fit on a platform's instances, measure on its fresh searches."""
    found = platform(seed, platforms)
    limit, instances, fresh = found.config.pipeline.max_new_tokens, found.instances, found.held_out
    queries = [x.query for x in instances]
    gains = log_rewards(found.deployment, instances, served_rewrites(policy, queries, max_new_tokens=limit))
    known = features(policy, queries)
    held = np.array([hash_share(x.user_id, "when to rewrite") < HELD_OUT for x in instances])
    trees = HistGradientBoostingRegressor(
        max_iter=200, learning_rate=0.05, max_leaf_nodes=15, min_samples_leaf=100, l2_regularization=10, random_state=seed
    ).fit(known[~held], gains[~held])
    predicted = trees.predict(known[held])
    texts = served_rewrites(policy, fresh.queries, max_new_tokens=limit)
    none: list[str | None] = [None] * len(texts)
    lists = [fused_lists(found.deployment, fresh.queries, some) for some in (none, texts)]
    without, with_ = (ndcg10(found.world, fresh.intents, rows) for rows in lists)
    scores = {
        "predicted": trees.predict(features(policy, fresh.queries)),
        "random": np.random.default_rng(seed).random(len(texts)),
        "truth": with_ - without,
    }
    touched = [bool(t) and t != q.text for t, q in zip(texts, fresh.queries, strict=True)]
    return {
        "seed": seed,
        "searches": len(texts),
        "rewritten": float(np.mean(touched)),
        "explained": float(1 - ((gains[held] - predicted) ** 2).mean() / gains[held].var()),
        "correlation_with_true_gain": float(np.corrcoef(scores["predicted"], with_ - without)[0, 1]),
        "reliability": reliability(predicted, gains[held]),
        "left_alone": {name: left_alone(score, without, with_) for name, score in scores.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--platforms", type=Path, default=Path("runs/launches"), help="folder of the platforms' runs")
    parser.add_argument("--policies", type=Path, required=True, help="folder with a policy for each seed, called by its number")
    parser.add_argument("--out", type=Path, default=Path("runs/when"), help="folder of the finished seeds")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        file = arguments.out / f"{seed}.json"
        if not file.is_file():
            made = study(seed, arguments.platforms, load_rewriter(arguments.policies / str(seed)))
            file.write_text(json.dumps(made, allow_nan=False), "utf-8")
    rows = [json.loads((arguments.out / f"{seed}.json").read_text("utf-8")) for seed in arguments.seeds]
    about = {"machine": machine(), "date": datetime.now(UTC).date().isoformat()}
    RESULTS.write_text(json.dumps({**about, "seeds": rows}, indent=1, allow_nan=False) + "\n", "utf-8")
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
