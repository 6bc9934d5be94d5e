"""A multimodal cross-encoder that plays the ranker a user has already deployed: trained apart from corewrite, exported, served.

`train.train_ranker`, `broken.break_ranker`, `export.export_versions`, `serve.run_server`; `measure` says how good it is.
"""
