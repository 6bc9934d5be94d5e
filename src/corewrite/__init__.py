"""corewrite: continuously reward-finetuned LLM query rewriting for multi-stage search."""
