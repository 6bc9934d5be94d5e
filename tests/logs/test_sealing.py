"""Sealed texts: readable with the private key alone, bound to their search and field; keys that come and go."""

import asyncio
import json
import stat

import pytest

nacl = pytest.importorskip("nacl.public", reason="PyNaCl is not installed")

from corewrite.logs import LogError, read_log  # noqa: E402
from corewrite.logs.sealing import Sealer, SealError, SealKeys, load_keys, make_keys  # noqa: E402
from corewrite.logs.texts import require_texts  # noqa: E402


@pytest.fixture
def pair(tmp_path):
    return make_keys(tmp_path / "keys")


def test_a_text_opens_with_the_key_for_its_search_and_field_alone(pair, tmp_path):
    public, private = pair
    assert stat.S_IMODE(private.stat().st_mode) == 0o600 and private.stem == public.stem
    sealer, keys = Sealer(public), load_keys(tmp_path / "keys")
    sealed = sealer.seal("q1", "user_query", "höhle 🦁 ")
    assert "höhle" not in sealed and sealer.seal("q1", "user_query", "höhle 🦁 ") != sealed, "an ephemeral key each"
    assert keys.open("q1", "user_query", sealed) == "höhle 🦁 "
    for query_id, field in (("q2", "user_query"), ("q1", "context_queries.0")):
        with pytest.raises(SealError, match="for another search or field"):
            keys.open(query_id, field, sealed)
    with pytest.raises(SealError, match="was changed since"):
        keys.open("q1", "user_query", sealed[:-8] + "AAAAAAA=")
    with pytest.raises(SealError, match="not a sealed text"):
        keys.open("q1", "user_query", "plain")
    # The construction is libsodium's: another of its users opens it.
    raw = sealed.rpartition(":")[2]
    box = nacl.SealedBox(nacl.PrivateKey(bytes.fromhex(private.read_text().strip())))
    import base64

    assert json.loads(box.decrypt(base64.b64decode(raw))) == ["q1", "user_query", "höhle 🦁 "]


def test_keys_are_changed_and_thrown_away(pair, tmp_path):
    old = Sealer(pair[0]).seal("q", "user_query", "old")
    newer = make_keys(tmp_path / "keys")
    new = Sealer(newer[0]).seal("q", "user_query", "new")
    both = load_keys(tmp_path / "keys")
    assert (both.open("q", "user_query", old), both.open("q", "user_query", new)) == ("old", "new")
    pair[1].unlink()
    with pytest.raises(SealError, match="whose private half is not in"):
        load_keys(tmp_path / "keys").open("q", "user_query", old)
    newer[1].chmod(0o644)
    with pytest.raises(SealError, match="chmod 600"):
        load_keys(tmp_path / "keys")
    newer[1].unlink()
    with pytest.raises(SealError, match="holds no private key"):
        load_keys(tmp_path / "keys")
    (tmp_path / "x.public").write_text("zz")
    with pytest.raises(SealError, match="is no key"):
        Sealer(tmp_path / "x.public")


def test_a_server_seals_and_only_who_has_the_key_learns(pair, tmp_path, served_sealed):
    files, asked = served_sealed(pair[0])
    text = "".join(f.read_text() for f in files)
    assert not any(word in text for word in asked), "nothing that a user typed stands there"
    with pytest.raises(LogError, match="sealed texts"):
        require_texts(read_log(files))
    keys: SealKeys = load_keys(tmp_path / "keys")
    log = require_texts(read_log(files, unseal=keys.open_line))
    table = log.searches.to_pyarrow().to_pylist()
    assert {row["query"] for row in table} == set(asked)
    assert {t for row in table for t in row["context_titles"]} == {"a title watched"}
    # A line whose text was moved from another one is a line that cannot be used.
    lines = [json.loads(line) for line in text.splitlines()]
    lines[0]["user_query"] = lines[1]["user_query"]
    moved = tmp_path / "moved.ndjson"
    moved.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = read_log(moved, unseal=keys.open_line, rejects_path=tmp_path / "rejects.ndjson").report
    assert report.rejected == 1 and "somebody moved it here" in (tmp_path / "rejects.ndjson").read_text()


@pytest.fixture
def served_sealed(tmp_path):
    """Serve some searches under a public key; the log's files and what was asked."""
    import importlib.util
    import sys
    from pathlib import Path

    name, file = "corewrite_serving_conftest", Path(__file__).parents[1] / "serving" / "conftest.py"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    serving = sys.modules[name]
    from corewrite.logs.files import log_files

    class Folders:
        def mktemp(self, base):
            (tmp_path / base).mkdir()
            return tmp_path / base

    def serve(public):
        made = serving.made._fixture_function(Folders())
        asked = made.queries(3)

        async def run():
            config = made.config(log={"folder": tmp_path / "log", "seal_to": public, "counterfactual_share": 1.0})
            async with serving.running(config, serving.as_title(made.catalogue)) as client:
                for query in asked:
                    await client.search(query, client_id="c", context={"titles": ["a title watched"], "queries": [asked[0]]})

        asyncio.run(run())
        return log_files(tmp_path / "log"), asked

    return serve
