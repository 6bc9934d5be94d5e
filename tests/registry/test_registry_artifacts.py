"""Saving and verifying content-addressed folders."""

import hashlib
import io
import json
import os
import pickle
import sqlite3
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from corewrite.domain import Provenance
from corewrite.registry import Artifact, Registry, RegistryError

FILES = {
    "weights.safetensors": b"\x00\x01\x02",
    "tokenizer/tokenizer.json": b"{}",
    "prompt_template.json": b'{"a":1}',
}
Write = Callable[[Path], None]


def writer(files: dict[str, bytes]) -> Write:
    def write(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    return write


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def stored(root: Path) -> list[str]:
    return sorted(p.name for p in root.glob("artifacts/*/*"))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "deep" / "registry")


def test_round_trip(registry: Registry) -> None:
    provenance = Provenance("0.1.0", "2026-01-01/2026-01-08", "s", "m", 7).as_dict()
    saved = registry.save("policy", writer(FILES), {"ndcg": 0.5, "provenance": provenance})
    folder = registry.path(saved)
    assert folder == registry.root / "artifacts" / "policy" / saved.hash
    assert content(folder) == FILES
    assert saved.metadata == {"ndcg": 0.5, "provenance": provenance}
    again = Registry(registry.root)
    assert again.artifact("policy", saved.hash) == saved
    assert again.artifacts() == [saved]
    beside = json.loads((folder.parent / f"{saved.hash}.metadata.json").read_text("utf-8"))
    assert Artifact(**beside) == saved
    again.verify("policy", saved.hash)
    assert again.verify_all() == []
    assert list((registry.root / "staging").iterdir()) == []


def test_hash_by_hand(registry: Registry) -> None:
    saved = registry.save("spec", writer({"b/x.json": b"1", "a.yaml": b"two"}), {})
    one, two = hashlib.sha256(b"1").hexdigest(), hashlib.sha256(b"two").hexdigest()
    assert saved.files == {"a.yaml": two, "b/x.json": one}
    assert saved.hash == hashlib.sha256(f'{{"a.yaml":"{two}","b/x.json":"{one}"}}'.encode()).hexdigest()


def test_same_content_is_the_same_artifact_whatever_the_metadata_and_order(registry: Registry) -> None:
    first = registry.save("policy", writer(FILES), {"reward": 1.0})
    second = registry.save("policy", writer(dict(reversed(FILES.items()))), {"reward": 2.0})
    assert second == first
    assert registry.artifacts() == [first]
    assert registry.save("relevance", writer(FILES), {}).hash == first.hash
    assert len(registry.artifacts()) == 2


@pytest.mark.parametrize(
    "other",
    [
        {**FILES, "weights.safetensors": b"\x00\x01\x03"},
        {**FILES, "more.json": b""},
        {("renamed.json" if k == "prompt_template.json" else k): v for k, v in FILES.items()},
        {("tokenizer.json" if k == "tokenizer/tokenizer.json" else k): v for k, v in FILES.items()},
        {
            **FILES,
            "prompt_template.json": FILES["tokenizer/tokenizer.json"],
            "tokenizer/tokenizer.json": b'{"a":1}',
        },
    ],
    ids=["bytes", "file", "name", "folder", "swapped"],
)
def test_other_content_is_another_artifact(registry: Registry, other: dict[str, bytes]) -> None:
    assert registry.save("policy", writer(other), {}).hash != registry.save("policy", writer(FILES), {}).hash


def flip(folder: Path) -> None:
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[1] ^= 1
    path.write_bytes(data)


def lose(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()


def add(folder: Path) -> None:
    (folder / "extra.json").write_text("{}")


def vanish(folder: Path) -> None:
    folder.rename(folder.parents[3] / "elsewhere")


def link(folder: Path) -> None:
    (folder / "weights.safetensors").rename(folder.parents[3] / "outside")
    (folder / "weights.safetensors").symlink_to(folder.parents[3] / "outside")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (flip, "changed: weights.safetensors"),
        (lose, "missing: weights.safetensors"),
        (add, "unexpected: extra.json"),
        (vanish, "is missing"),
        (link, "weights.safetensors is a symbolic link"),
    ],
)
def test_damage_is_found_and_named(registry: Registry, damage: Write, named: str) -> None:
    sound = registry.save("policy", writer({"a.json": b"1"}), {})
    saved = registry.save("policy", writer(FILES), {})
    damage(registry.path(saved))
    with pytest.raises(RegistryError, match=named) as caught:
        registry.verify("policy", saved.hash)
    assert saved.hash in str(caught.value)
    (finding,) = registry.verify_all()
    assert (finding.kind, finding.hash) == ("policy", saved.hash)
    assert named in finding.problem
    registry.verify("policy", sound.hash)


def test_damaged_content_is_not_taken_for_saved_and_can_be_replaced(registry: Registry, tmp_path: Path) -> None:
    saved = registry.save("policy", writer(FILES), {"reward": 1.0})
    flip(registry.path(saved))
    with pytest.raises(RegistryError, match=r"changed: weights\.safetensors: move .* away and save"):
        registry.save("policy", writer(FILES), {})
    registry.path(saved).rename(tmp_path / "damaged")
    assert registry.save("policy", writer(FILES), {}) == saved
    assert registry.verify_all() == []


def test_entry_that_is_not_registered_is_found_and_adopted(registry: Registry, tmp_path: Path) -> None:
    made = Registry(tmp_path / "other").save("policy", writer(FILES), {})
    folder = registry.root / "artifacts" / "policy" / made.hash
    writer(FILES)(folder)  # as after a kill between rename and commit
    (finding,) = registry.verify_all()
    assert finding.hash == made.hash
    assert "not registered" in finding.problem
    with pytest.raises(RegistryError, match="save it first"):
        registry.verify("policy", made.hash)
    assert registry.save("policy", writer(FILES), {"late": True}).metadata == {"late": True}
    assert registry.verify_all() == []


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin", "m.pt", "m.pth", "m.pkl", "m.PICKLE", "m.ckpt", "m.joblib", "sub/m.dill",
        "m.npy", "m.npz", "modeling_custom.py", "cache/x.pyc", "ext.so",
    ],
)  # fmt: skip
def test_pickles_and_code_are_refused(registry: Registry, name: str) -> None:
    with pytest.raises(RegistryError, match=Path(name).name):
        registry.save("policy", writer({**FILES, name: pickle.dumps([1])}), {})
    assert stored(registry.root) == []
    assert list((registry.root / "staging").iterdir()) == []


REMOTE = [
    ("config.json", {"auto_map": {"AutoConfig": "evil.Config"}}, "auto_map"),
    ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["x--tok.T", None]}}, "auto_map"),
    ("sub/config.json", {"text_config": [{"auto_map": {"AutoModel": "evil.M"}}]}, "auto_map"),
    ("Config.JSON", {"custom_pipelines": {"x": {"impl": "evil.P"}}}, "custom_pipelines"),
]


@pytest.mark.parametrize(("name", "config", "key"), REMOTE)
def test_remote_code_is_refused(registry: Registry, name: str, config: dict, key: str) -> None:
    with pytest.raises(RegistryError, match=rf"asks for code of its own \('{key}'\)"):
        registry.save("policy", writer({**FILES, name: json.dumps(config).encode()}), {})
    assert stored(registry.root) == []


def test_a_harmless_config_is_taken_and_an_unreadable_one_refused(registry: Registry) -> None:
    plain = {"auto_map": None, "model_type": "llama", "note": "auto_map"}
    registry.save("policy", writer({"config.json": json.dumps(plain).encode()}), {})
    with pytest.raises(RegistryError, match=r"config\.json is not JSON"):
        registry.save("policy", writer({"config.json": b"{'auto_map': 1}"}), {})
    with pytest.raises(RegistryError, match=r"config\.json is not JSON"):
        registry.save("policy", writer({"config.json": b"[" * 100_000}), {})


def test_weights_that_an_index_maps_elsewhere_are_refused(registry: Registry, tmp_path: Path) -> None:
    """The hash would not cover what is loaded: `verify` had passed after that file was changed."""
    (tmp_path / "elsewhere.safetensors").write_bytes(b"1")
    for value in (str(tmp_path / "elsewhere.safetensors"), "../elsewhere.safetensors", "sub/x.safetensors", "gone.safetensors"):
        index = json.dumps({"metadata": {}, "weight_map": {"a": value}}).encode()
        with pytest.raises(RegistryError, match=r"model\.safetensors\.index\.json maps 'a' to"):
            registry.save("policy", writer({"model.safetensors.index.json": index, "sub/x.safetensors": b"1"}), {})
    assert stored(registry.root) == []
    index = json.dumps({"metadata": {}, "weight_map": {"a": "weights.safetensors"}}).encode()
    saved = registry.save("policy", writer({**FILES, "model.safetensors.index.json": index}), {})
    registry.verify("policy", saved.hash)


def test_an_artifact_of_before_whose_index_leads_out_does_not_verify(registry: Registry, monkeypatch) -> None:
    index = json.dumps({"metadata": {}, "weight_map": {"a": "../x.safetensors"}}).encode()
    with monkeypatch.context() as before:
        before.setattr("corewrite.registry.content.check_model_file", lambda path: None)
        saved = registry.save("policy", writer({**FILES, "model.safetensors.index.json": index}), {})
    with pytest.raises(RegistryError, match="maps 'a' to"):
        registry.verify("policy", saved.hash)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("adapter_config.json", b'{"base_model_name_or_path": "/anywhere"}'),
        ("config.json", b'{"attn_implementation": "evil/kernel"}'),
        ("config.json", b'{"transformers_weights": "../x.safetensors"}'),
    ],
)
def test_what_is_loaded_from_elsewhere_is_refused(registry: Registry, name: str, content: bytes) -> None:
    with pytest.raises(RegistryError, match=name):
        registry.save("policy", writer({**FILES, name: content}), {})
    assert stored(registry.root) == []


@pytest.mark.parametrize("name", [".hidden", ".cache/x.json", "README.md", "a.lock"])
def test_hidden_files_and_notes_are_part_of_the_hash(registry: Registry, name: str) -> None:
    saved = registry.save("policy", writer({**FILES, name: b"1"}), {})
    assert name in saved.files
    (registry.path(saved) / name).write_bytes(b"2")
    with pytest.raises(RegistryError, match="is damaged"):
        registry.verify("policy", saved.hash)


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps([1]))
    return out.getvalue()


@pytest.mark.parametrize("data", [zipped(), *(pickle.dumps({"x": [1] * 9}, protocol) for protocol in (2, 3, 4, 5))])
def test_a_pickle_by_another_name_is_refused(registry: Registry, data: bytes) -> None:
    with pytest.raises(RegistryError, match="may need unpickling"):
        registry.save("policy", writer({**FILES, "weights.safetensors": data}), {})


@pytest.mark.parametrize("length", [0x0280, 0x0580])
def test_a_safetensors_header_that_starts_like_a_pickle_is_none(registry: Registry, length: int) -> None:
    header = b'{"__metadata__":{}}'.ljust(length)
    registry.save("policy", writer({"w.safetensors": length.to_bytes(8, "little") + header}), {})


@pytest.mark.parametrize("name", ["..\\up.json", "a\nb.json", os.fsdecode(b"a\xff.json")])
def test_names_that_others_may_take_for_paths_are_refused(registry: Registry, name: str) -> None:
    with pytest.raises(RegistryError, match="another program may read as a path"):
        registry.save("policy", writer({name: b"1"}), {})


def test_a_manifest_with_other_names_than_the_content_is_found(registry: Registry) -> None:
    saved = registry.save("spec", writer({"a.yaml": b"1"}), {})
    with sqlite3.connect(registry.root / "registry.sqlite3") as connection:
        connection.execute("""UPDATE artifacts SET files = replace(files, 'a.yaml', '../../a.yaml')""")
    with pytest.raises(RegistryError, match=r"names other files, missing: \.\./\.\./a\.yaml; unexpected: a\.yaml"):
        registry.verify("spec", saved.hash)


def test_folders_of_the_registry_that_are_links_are_refused(registry: Registry, tmp_path: Path) -> None:
    saved = registry.save("spec", writer({"a.yaml": b"1"}), {})
    folder = registry.path(saved)
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    for use in (lambda: registry.path(saved), lambda: registry.verify("spec", saved.hash)):
        with pytest.raises(RegistryError, match="is missing or a link"):
            use()
    with pytest.raises(RegistryError, match="is no folder"):
        registry.save("spec", writer({"a.yaml": b"1"}), {})
    folder.parent.rename(tmp_path / "shelf")
    folder.parent.symlink_to(tmp_path / "shelf")
    with pytest.raises(RegistryError, match=r"artifacts/spec is a symbolic link"):
        Registry(registry.root)


def test_an_artifact_is_found_by_the_start_of_its_hash(registry: Registry) -> None:
    one, two = (registry.save("policy", writer({"a.txt": text}), {}) for text in (b"1", b"2"))
    assert registry.find(one.hash[:6]) == registry.find(one.hash) == registry.find(one.hash[:9], "policy") == one
    for prefix, why in [(two.hash[:5], "no hash"), ("../../", "no hash"), (two.hash[:6].upper() + "A", "no hash")]:
        with pytest.raises(RegistryError, match=why):
            registry.find(prefix)
    with pytest.raises(RegistryError, match="start of no artifact"):
        registry.find(two.hash, "spec")
    with pytest.raises(RegistryError, match=r"kind 'x' is none of"):
        registry.find(two.hash, "x")  # type: ignore[arg-type]
    registry.save("spec", writer({"a.txt": b"2"}), {})
    with pytest.raises(RegistryError, match=r"start of 2 \(policy"):
        registry.find(two.hash[:8])
    assert registry.find(two.hash[:8], "policy") == two


def escape_file(folder: Path) -> None:
    (folder / "link.json").symlink_to("/etc/hostname")


def escape_folder(folder: Path) -> None:
    (folder / "link").symlink_to(folder.parents[1], target_is_directory=True)


def dangling(folder: Path) -> None:
    (folder / "link").symlink_to("nowhere")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def replaced(folder: Path) -> None:
    folder.rmdir()
    folder.symlink_to("/etc", target_is_directory=True)


def nothing(folder: Path) -> None:
    pass


def hollow(folder: Path) -> None:
    writer(FILES)(folder)
    (folder / "hollow").mkdir()


@pytest.mark.parametrize(
    ("write", "named"),
    [
        (escape_file, "link.json is a symbolic link"),
        (escape_folder, "link is a symbolic link"),
        (dangling, "link is a symbolic link"),
        (pipe, "pipe is a special file"),
        (replaced, "is no folder"),
        (nothing, "content is empty"),
        (hollow, "hollow is empty"),
    ],
)
def test_what_is_no_plain_content_is_refused(registry: Registry, write: Write, named: str) -> None:
    with pytest.raises(RegistryError, match=named):
        registry.save("policy", write, {})
    assert stored(registry.root) == []


@pytest.mark.parametrize("metadata", [{"x": float("nan")}, {"x": object()}, {"x": Path("a")}])
def test_metadata_that_is_no_json_is_refused_before_the_work(registry: Registry, metadata: dict) -> None:
    called = []
    with pytest.raises(RegistryError, match="metadata is not JSON"):
        registry.save("policy", called.append, metadata)
    assert called == []


@pytest.mark.parametrize("hash", ["../../../etc", "", "A" * 64, "g" * 64, "a" * 63, "a" * 64 + "\n"])
def test_names_that_are_no_hash_are_refused(registry: Registry, hash: str) -> None:
    for use in (
        lambda: registry.verify("policy", hash),
        lambda: registry.artifact("policy", hash),
        lambda: registry.path(Artifact("policy", hash, {}, {}, "")),
        lambda: registry.quarantine("policy", hash, reason="x"),
    ):
        with pytest.raises(RegistryError, match="not a content hash"):
            use()


def test_unknown_kind_and_hash_are_refused(registry: Registry) -> None:
    with pytest.raises(RegistryError, match=r"kind '\.\./policy' is none of policy, relevance, spec"):
        registry.save("../policy", writer(FILES), {})  # type: ignore[arg-type]
    with pytest.raises(RegistryError, match=r"there is no policy a+ in the registry"):
        registry.verify("policy", "a" * 64)


def test_failing_write_leaves_nothing(registry: Registry) -> None:
    def write(folder: Path) -> None:
        writer(FILES)(folder)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        registry.save("policy", write, {})
    assert stored(registry.root) == []
    assert list((registry.root / "staging").iterdir()) == []
    assert registry.artifacts() == []
    assert registry.verify_all() == []


def test_order_of_writes(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file and folder is on disk before the rename, the rename before the row."""
    events: list[tuple[str, str, int]] = []
    fsync, rename = os.fsync, Path.rename

    def rows() -> int:
        with sqlite3.connect(registry.root / "registry.sqlite3") as connection:
            return int(connection.execute("SELECT count(*) FROM artifacts").fetchone()[0])

    def spy_fsync(descriptor: int) -> None:
        parts = Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(registry.root).parts
        # Below staging/ the second part is a random name.
        events.append(("fsync", "/".join(parts[2:] if parts[0] == "staging" else parts), rows()))
        fsync(descriptor)

    def spy_rename(source: Path, target: Path) -> Path:
        events.append(("rename", source.name, rows()))
        return rename(source, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "rename", spy_rename)
    registry.save("policy", writer(FILES), {})
    at = events.index(("rename", "content", 0))
    staged = ["metadata.json", "content", "content/tokenizer", *(f"content/{name}" for name in FILES)]
    assert sorted(events[:at]) == sorted([*(("fsync", name, 0) for name in staged), ("rename", "metadata.json", 0)])
    assert events[at + 1 :] == [("fsync", "artifacts/policy", 0)]
    assert rows() == 1


def test_database_is_durable_and_only_for_known_formats(registry: Registry, tmp_path: Path) -> None:
    with registry._ledger.write() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (3,)  # EXTRA
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
        assert connection.in_transaction
    with sqlite3.connect(registry.root / "registry.sqlite3") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(RegistryError, match=r"format 99.*newer corewrite"):
        Registry(registry.root)


def test_lost_or_broken_database_is_an_error_not_a_fresh_start(registry: Registry) -> None:
    registry.save("policy", writer(FILES), {})
    database = registry.root / "registry.sqlite3"
    database.unlink()
    with pytest.raises(RegistryError, match="unable to open"):
        registry.champion()
    with pytest.raises(RegistryError, match=r"registry\.sqlite3 is gone or empty: restore it"):
        Registry(registry.root)
    database.write_bytes(b"no database at all, but long enough to be looked at" * 50)
    with pytest.raises(RegistryError, match="file is not a database"):
        Registry(registry.root)


def test_content_is_readable_by_others(registry: Registry) -> None:
    """A serving process may run as another user than the trainer: staging's private rights must not stick."""
    folder = registry.path(registry.save("policy", writer(FILES), {}))
    fresh = registry.root / "fresh"
    fresh.mkdir()
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(fresh.stat().st_mode)
