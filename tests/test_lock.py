"""The locks: of the serving image with the hash of every file, and of the lowest versions that pyproject.toml allows."""

import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements" / "serve.txt"
IMAGE = {"python_version": "3.11", "python_full_version": "3.11.9", "sys_platform": "linux", "platform_machine": "x86_64",
         "platform_system": "Linux", "os_name": "posix", "implementation_name": "cpython",
         "platform_python_implementation": "CPython", "extra": ""}  # fmt: skip


def locked() -> dict[str, tuple[Version, int]]:
    """Version and number of hashes by name."""
    found = {}
    for entry in re.sub(r"\\\n\s*", " ", LOCK.read_text("utf-8")).splitlines():
        said, *hashes = re.split(r"\s+--hash=", entry.strip())
        name, version = said.split("==")
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", h) for h in hashes), entry
        found[canonicalize_name(name)] = Version(version), len(hashes)
    return found


def asked() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    constraints = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if not line.startswith("#")]
    return [Requirement(line) for line in [*lines, *constraints]]


def test_everything_has_a_hash_and_nothing_is_of_one_machine() -> None:
    assert all(hashes for _, hashes in locked().values()) and len(locked()) > 40
    text = LOCK.read_text("utf-8")
    assert not re.search(r"https?:|file:|--index|--find-links|/", text) and len(text) < 1_000_000


def test_it_holds_what_pyproject_asks_for() -> None:
    found = locked()
    for requirement in asked():
        version, _ = found[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} and {version}: run `make lock`"


def test_the_image_has_nothing_that_trains_or_reports() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    others = {canonicalize_name(Requirement(line).name) for line in [*extras["train"], *extras["report"]]}
    assert len(others) >= 4 and not others & locked().keys()


def test_torch_is_the_build_for_processors_without_its_packages_for_cuda() -> None:
    found = locked()
    assert found["torch"][0].local == "cpu"
    assert not [name for name in found if name.startswith(("nvidia", "cuda", "triton"))]


def test_it_is_whole() -> None:
    """By what the packages installed here say that they need, as far as they are of the same versions."""
    found, looked = locked(), 0
    for name, (version, _) in found.items():
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue
        if Version(installed.version).public != version.public:
            continue
        looked += 1
        for requirement in map(Requirement, installed.requires or []):
            if requirement.marker is None or requirement.marker.evaluate(IMAGE):
                needed = found.get(canonicalize_name(requirement.name))
                assert needed is not None, f"{name} needs {requirement}, which is not locked: run `make lock`"
                assert requirement.specifier.contains(needed[0].public, prereleases=True), f"{name} needs {requirement}"
    assert looked > 20 or sys.version_info[:2] != (3, 11)


def test_the_lowest_versions_are_those_of_pyproject() -> None:
    lines = (ROOT / "requirements" / "lowest.txt").read_text("utf-8").split()
    found = {canonicalize_name(name): Version(version) for name, version in (line.split("==") for line in lines)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    checked = 0
    for requirement in map(Requirement, [*project["dependencies"], *extras["train"], *extras["report"]]):
        if requirement.name != "torch":  # pinned in constraints.txt
            (bound,) = [Version(s.version) for s in requirement.specifier if s.operator == ">="]
            assert found[canonicalize_name(requirement.name)] == bound, f"{requirement}: run `make lock-lowest`"
            checked += 1
    assert checked >= 20
