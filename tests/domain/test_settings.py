"""Reading settings: every refusal names file, line, setting, value and what to write instead."""

from typing import Annotated, Literal

import pytest
from pydantic import Field, model_validator

from corewrite.domain import ConfigError, Settings, read_settings


class Embedded(Settings):
    kind: Literal["embedded"] = "embedded"


class Server(Settings):
    kind: Literal["kserve"]
    url: str
    version: str = ""
    timeout: float = 1.0


class Training(Settings):
    phases: int = Field(default=6, ge=1)
    beta: float = Field(default=0.2, gt=0)
    running: bool = True
    threads: int | None = None
    flag: bool | int = 0


class Whole(Settings):
    name: str = "x"
    training: Training = Training()
    signals: dict[str, Annotated[Embedded | Server, Field(discriminator="kind")]] = Field(default_factory=dict)
    stages: tuple[Training, ...] = ()

    @model_validator(mode="after")
    def _no_clash(self):
        if self.name == "clash":
            raise ValueError("name 'clash' is taken: choose another")
        return self


def refusal(tmp_path, text: str) -> list[str]:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        read_settings(tmp_path / "c.yaml", Whole)
    return str(error.value).replace(f"{tmp_path}/", "").splitlines()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\ntrainning:\n  phases: 2", "c.yaml:2: trainning: unknown name; did you mean 'training'?"),
        ("training:\n  phases: 2\n  bete: 1", "c.yaml:3: training.bete: unknown name; did you mean 'beta'?"),
        ("training: {zzz: 1}", "c.yaml:1: training.zzz: unknown name; there are beta, flag, phases, running, threads"),
        ("stages:\n- phases: 2\n- phasen: 2", "c.yaml:3: stages.1.phasen: unknown name; did you mean 'phases'?"),
        ("signals:\n  a:\n    kind: kserve\n    url: x\n    timeut: 1",
         "c.yaml:5: signals.a.timeut: unknown name; did you mean 'timeout'?"),
        ("signals:\n  a:\n    url: x", "c.yaml:2: signals.a: needs `kind`, one of embedded, kserve"),
        ("signals:\n  a: {kind: kserve}", "c.yaml:2: signals.a.url: Field required"),
        ("signals:\n  a:\n    kind: kserve\n    url: x\n    version: 3",
         "c.yaml:5: signals.a.version: Input should be a valid string: put it in quotes (got 3)"),
        ("training:\n  beta: -1", "c.yaml:2: training.beta: Input should be greater than 0 (got -1)"),
        ("training:\n  phases: yes",
         "c.yaml:2: training.phases: must be a number (YAML reads yes, no, on and off as true and false) (got True)"),
        ("stages:\n- beta: 1\n- {beta: on}",
         "c.yaml:3: stages.1.beta: must be a number (YAML reads yes, no, on and off as true and false) (got True)"),
        ("training:\n  threads: no",
         "c.yaml:2: training.threads: must be a number (YAML reads yes, no, on and off as true and false) (got False)"),
        ("training: {phases: 1}\nname: b\ntraining: {phases: 2}",
         "c.yaml:3: not valid YAML: key 'training' stands twice: drop one"),
        ("training:\n  beta: 1\n  phases: 1\n  beta: 1", "c.yaml:4: not valid YAML: key 'beta' stands twice: drop one"),
        ("name: &a x\ntraining: *a", "c.yaml:2: not valid YAML: aliases (*name) are not allowed here: write the value out"),
        ("- 1", "c.yaml:1: settings: must be a mapping (`name: value`, a line each), this is a list"),
        ("name: a\nb: [", "c.yaml:2: not valid YAML: expected the node content, but found '<stream end>'"),
        ("name: !!python/name:os.system", "c.yaml:1: not valid YAML: could not determine a constructor for the tag "
         "'tag:yaml.org,2002:python/name:os.system'"),
        ("name: clash", "c.yaml:1: settings: name 'clash' is taken: choose another"),
        ("[" * 5000, "c.yaml:1: cannot read the settings: nested too deeply"),
    ],
)  # fmt: skip
def test_one_problem(tmp_path, text, said):
    assert refusal(tmp_path, text) == [said]


def test_all_problems_are_named_at_once(tmp_path):
    found = refusal(tmp_path, "nam: a\ntraining:\n  beta: 0\n\n  phases: x\nstages: 3\n")
    assert [line.split(": ")[:2] for line in found] == [
        ["c.yaml:1", "nam"], ["c.yaml:3", "training.beta"], ["c.yaml:5", "training.phases"], ["c.yaml:6", "stages"],
    ]  # fmt: skip


def test_a_terminal_is_given_nothing_to_obey(tmp_path):
    (line,) = refusal(tmp_path, '"\\e[31mred": 1')
    assert line.isprintable() and "\\x1b[31mred" in line


def test_what_is_right_is_read(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "training: {phases: 2, running: no, flag: yes, beta: 1}\nsignals: {a: {kind: embedded}, b: {kind: kserve, url: u}}"
    )
    found = read_settings(tmp_path / "c.yaml", Whole)
    assert (found.training.phases, found.training.running, found.training.flag) == (2, False, True)
    assert found.signals == {"a": Embedded(), "b": Server(kind="kserve", url="u")}
    (tmp_path / "c.yaml").write_text("# nothing\n")
    assert read_settings(tmp_path / "c.yaml", Whole) == Whole()


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(ConfigError, match=r"no\.yaml: cannot read the settings: .*No such file"):
        read_settings(tmp_path / "no.yaml", Whole)
    (tmp_path / "b.yaml").write_bytes(b"name: \xff")
    with pytest.raises(ConfigError, match=r"b\.yaml: cannot read the settings: .*utf-8"):
        read_settings(tmp_path / "b.yaml", Whole)
