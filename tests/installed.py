"""A package that is not ours, installed for one test: its entry points are found as those of any other."""

from pathlib import Path


def install(folder: Path, monkeypatch, points: dict[str, dict[str, str]], name: str = "own_package", **modules: str) -> None:
    """Write a distribution's metadata and modules, and put the folder on the path.

    Args:
        folder: An empty one of the test.
        monkeypatch: Of the test.
        points: Entry points: by group, then by name, `module:attribute`.
        name: Of the distribution.
        modules: Source by module name.
    """
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", "utf-8")
    groups = ("\n".join([f"[{group}]", *(f"{n} = {v}" for n, v in of.items())]) for group, of in points.items())
    (about / "entry_points.txt").write_text("\n".join(groups) + "\n", "utf-8")
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source, "utf-8")
    monkeypatch.syspath_prepend(str(folder))
