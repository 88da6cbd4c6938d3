"""`TextModel`, loaded from a saved model by this package instead of by the bundled code."""

import json
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mlflow.pyfunc import scoring_server
from pandas.testing import assert_frame_equal

from lightning_hpo.agents import CriteriaAgent, EvidenceAgent, JointAgent
from lightning_hpo.data.tokenization import tokenize
from lightning_hpo.exceptions import InputError, LightningHpoError
from lightning_hpo.serving import text_model
from lightning_hpo.serving.checksums import DIGEST, MLMODEL, file_digests
from lightning_hpo.serving.flavor import save_model
from lightning_hpo.serving.text_model import TextModel, _is_one_letter_off, _load_pyfunc, _nearest
from tests.planted_program import plant_code
from tests.server import free_port, run_server
from tests.tiny import CRITERIA, LONG_POST, WORDS, tiny_data, write_tiny_encoder

pytestmark = [
    # Raised inside torch.export.
    pytest.mark.filterwarnings("ignore::FutureWarning:torch"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

POSTS = ["i am so tired", LONG_POST, "the dog is fine today", "no sleep", " ".join(WORDS)]
MODELS = ["criteria", "evidence", "one_pass", "joint"]
TABLE = [(criterion, post) for criterion in CRITERIA for post in POSTS]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that holds each saved model under its name."""
    folder = tmp_path_factory.mktemp("models")
    encoder = write_tiny_encoder(folder / "encoder")
    torch.manual_seed(1)
    decoding: Any = {"null_policy": "none", "max_answer_tokens": 4, "overlap": 0.0}
    agents = (
        CriteriaAgent(encoder),
        EvidenceAgent(encoder, decoding=decoding),
        CriteriaAgent(encoder, form="one_pass"),
        JointAgent(encoder, decoding=decoding),
    )
    for name, agent in zip(MODELS, agents, strict=True):
        save_model(str(folder / name), module=agent, datamodule=tiny_data(encoder))
    return folder


@pytest.fixture(scope="module")
def models(saved: Path) -> dict[str, TextModel]:
    """Return the models by their names."""
    return {name: _load_pyfunc(str(saved / name / "data" / "texts")) for name in MODELS}


def _rows(*rows: tuple[Any, Any]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["criterion", "post"])


@pytest.mark.parametrize("agent", MODELS)
def test_predictions_do_not_depend_on_the_batch(models: dict[str, TextModel], agent: str) -> None:
    table = _rows(*TABLE).set_index(pd.Index(range(100, 100 + len(TABLE))))
    together = models[agent].predict(table)
    alone = pd.concat([models[agent].predict(table.iloc[place : place + 1]) for place in range(len(table))])
    pd.testing.assert_frame_equal(together, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("agent", MODELS)
def test_bf16_model_predicts_in_bf16_if_the_processor_supports_it(
    saved: Path, models: dict[str, TextModel], agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved / agent, folder)
    settings = folder / "data" / "texts" / "serving.json"
    settings.write_text(settings.read_text(encoding="utf-8").replace("32-true", "bf16-mixed"), encoding="utf-8")
    metadata = yaml.safe_load((folder / MLMODEL).read_text(encoding="utf-8"))
    metadata["metadata"][DIGEST] = file_digests(folder)
    (folder / MLMODEL).write_text(yaml.safe_dump(metadata), encoding="utf-8")
    column = {"evidence": "score"}.get(agent, "probability")
    exact = models[agent].predict(_rows(*TABLE))[column]
    monkeypatch.setattr("lightning_hpo.serving.text_model.computes_bf16", lambda: False)
    assert (_load_pyfunc(str(settings.parent)).predict(_rows(*TABLE))[column] == exact).all()
    monkeypatch.setattr("lightning_hpo.serving.text_model.computes_bf16", lambda: True)
    narrow = _load_pyfunc(str(settings.parent)).predict(_rows(*TABLE))[column]
    assert (narrow != exact).any()
    np.testing.assert_allclose(narrow, exact, atol=0.05)


def test_changed_program_is_refused_before_torch_runs_its_code(saved: Path, tmp_path: Path) -> None:
    folder, marker = tmp_path / "model", tmp_path / "code has run"
    shutil.copytree(saved / "criteria", folder)
    plant_code(folder / "data/model.pt2", marker)
    with pytest.raises(LightningHpoError, match=r"^data/model\.pt2 is not as it was logged: its sha256 differs, or"):
        _load_pyfunc(str(folder / "data/texts"))
    assert not marker.exists()
    with pytest.raises(AttributeError):  # the reason of the refusal
        torch.export.load(folder / "data/model.pt2")
    assert marker.exists()


@pytest.mark.parametrize("agent", MODELS)
def test_windows_of_a_long_post_are_read_in_parts(
    models: dict[str, TextModel], agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models[agent]
    network, sizes = model._network, []

    def counting(*inputs: torch.Tensor) -> torch.Tensor:
        sizes.append(len(inputs[0]))
        return torch.as_tensor(network(*inputs))

    table = _rows(("FATIGUE", " ".join(WORDS * 200)))
    monkeypatch.setattr(text_model, "_MAX_WINDOWS", 10_000)
    monkeypatch.setattr(text_model, "_MAX_TOKENS", 1_000_000)
    whole = model.predict(table)
    monkeypatch.undo()
    monkeypatch.setattr(model, "_network", counting)
    assert_frame_equal(model.predict(table), whole)
    assert max(sizes) == 32
    assert sum(sizes) > 100


def test_each_text_is_tokenized_once(models: dict[str, TextModel], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def counted(tokenizer: Any, texts: Any) -> Any:
        seen.extend(texts)
        return tokenize(tokenizer, texts)

    monkeypatch.setattr("lightning_hpo.data.windows.tokenize", counted)
    models["criteria"].predict(_rows(*TABLE))
    assert sorted(seen) == sorted({*CRITERIA.values(), *POSTS})


def test_one_pass_reads_each_post_and_each_criterion_once_in_a_batch(
    models: dict[str, TextModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models["one_pass"]
    network, read = model._network, []

    def counting(*inputs: torch.Tensor) -> torch.Tensor:
        read.append((len(inputs[0]), len(inputs[2])))
        return torch.as_tensor(network(*inputs))

    texts = ["FATIGUE", "SLEEP_ISSUES", "the dog", "no more sleep today"]
    table = _rows(*[(criterion, post) for criterion in texts for post in ("i am so tired", "no sleep")])
    alone = pd.concat([model.predict(table.iloc[place : place + 1]) for place in range(len(table))])
    monkeypatch.setattr(model, "_network", counting)
    together = model.predict(table)
    assert read == [(2, 4)]
    assert_frame_equal(together, alone.reset_index(drop=True), rtol=1e-5)
    monkeypatch.setattr(text_model, "_MAX_CRITERIA", 3)
    assert_frame_equal(model.predict(table), together, rtol=1e-5)
    assert together["probability"].nunique() == len(table)


def test_threshold_parameter(models: dict[str, TextModel]) -> None:
    model, table = models["criteria"], _rows(*TABLE)
    probability = model.predict(table)["probability"]
    assert model.predict(table)["met"].tolist() == (probability >= 0.5).tolist()
    threshold = float(probability.sort_values().iloc[3])
    assert model.predict(table, {"threshold": threshold})["met"].sum() == len(table) - 3
    assert model.predict(table, {"threshold": 0.0})["met"].all()


def test_null_threshold_parameter(models: dict[str, TextModel]) -> None:
    model, table = models["evidence"], _rows(*TABLE)
    score = model.predict(table)["score"]
    assert not model.predict(table)["null"].any()
    threshold = -float(score.sort_values().iloc[3]) + 1e-3
    answers = model.predict(table, {"null_threshold": threshold})
    assert answers["null"].sum() == 3
    assert (answers["text"] == "").tolist() == answers["null"].tolist()
    np.testing.assert_allclose(answers["score"], score, rtol=1e-6)


def test_top_k_parameter(models: dict[str, TextModel]) -> None:
    model, table = models["evidence"], _rows(("FATIGUE", LONG_POST))
    assert "answers" not in model.predict(table)
    answers = json.loads(model.predict(table, {"top_k": 3})["answers"][0])
    assert len(answers) == 3
    assert answers[0]["text"] == model.predict(table)["text"][0]


@pytest.mark.parametrize(
    ("agent", "params", "problem"),
    [
        ("criteria", {"threshold": 1.5}, "parameter threshold: got 1.5; it must be from 0 to 1"),
        ("criteria", {"threshold": float("nan")}, "parameter threshold: got nan; it must be from 0 to 1"),
        ("evidence", {"top_k": 0}, "parameter top_k: got 0; it must be from 1 to 1000"),
        (
            "evidence",
            {"null_threshold": float("inf")},
            "parameter null_threshold: got inf; it must be from -1e+38 to 1e+38",
        ),
        (
            "evidence",
            {"threshold": 0.5},
            "parameter threshold: no such parameter of this model; use null_threshold, top_k, device",
        ),
    ],
)
def test_invalid_parameters_are_refused(
    models: dict[str, TextModel], agent: str, params: dict[str, float], problem: str
) -> None:
    with pytest.raises(InputError) as caught:
        models[agent].predict(_rows(*TABLE), params)
    assert caught.value.problems == [problem]


@pytest.mark.parametrize("agent", MODELS)
@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (("FATIGUE", " \n"), "post: empty or not a text"),
        (("FATIGUE", None), "post: empty or not a text"),
        (("FATIGUE", float("nan")), "post: empty or not a text"),
        (("FATIGUE", 7), "post: empty or not a text"),
        (("FATIGUE", "\ud800"), "post: empty or not a text"),
        ((None, "secret"), "criterion: empty or not a text"),
        ((["a list"], "secret"), "criterion: empty or not a text"),
        ((pd.NA, "secret"), "criterion: empty or not a text"),
        ((np.array(["a", "b"]), "secret"), "criterion: empty or not a text"),
        (("", ""), "criterion and post: empty or not a text"),
        (
            ("secret " * 23, "secret"),
            "criterion: got 23 tokens, too many for windows of 24; use a shorter criterion",
        ),
    ],
)
def test_row_with_a_problem_has_no_answer_and_the_others_have_theirs(
    models: dict[str, TextModel], agent: str, row: tuple[Any, Any], problem: str
) -> None:
    whole = models[agent].predict(_rows(*TABLE))
    table = pd.DataFrame([*TABLE[:3], row, *TABLE[3:]], columns=["criterion", "post"], dtype=object)
    found = models[agent].predict(table).to_dict("records")
    assert found.pop(3) == {**dict.fromkeys(whole.columns), "problem": problem}
    assert found == [
        {name: pytest.approx(value) if isinstance(value, float) else value for name, value in record.items()}
        for record in whole.to_dict("records")
    ]
    assert set(whole["problem"]) == {""}
    (alone,) = models[agent].predict(table[3:4]).to_dict("records")
    assert alone["problem"] == problem
    assert json.loads(json.dumps(alone, allow_nan=False)) == alone


def test_misspelt_criterion_is_refused_by_its_first_row_without_a_problem(models: dict[str, TextModel]) -> None:
    rows = [(np.array(["a", "b"]), "secret"), (pd.NA, "secret"), ("fatigu", ""), ("fatigu", "secret")]
    with pytest.raises(InputError, match=r"^input row 3, column criterion: got 'fatigu', which is no criterion"):
        models["criteria"].predict(pd.DataFrame(rows, columns=["criterion", "post"], dtype=object))


def test_table_without_a_column_is_refused(models: dict[str, TextModel]) -> None:
    with pytest.raises(InputError, match=r"^input: no column post; use the columns criterion and post$"):
        models["criteria"].predict(pd.DataFrame({"criterion": ["FATIGUE"], "text": ["secret"]}))


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("sleep_issues", "SLEEP_ISSUES"),
        ("Sleep Issues", "SLEEP_ISSUES"),
        (" SLEEP_ISSUES\n", "SLEEP_ISSUES"),
        ("SLEEPISSUES", "SLEEP_ISSUES"),
        ("sleep-issue", "SLEEP_ISSUES"),
        ("LEEP_ISSUES", "SLEEP_ISSUES"),
        ("FATIQUE", "FATIGUE"),
        ("FATIUGE", "FATIGUE"),
        ("FATIGUED", "FATIGUE"),
    ],
)
def test_misspelt_criterion_is_refused_with_the_nearest(models: dict[str, TextModel], given: str, meant: str) -> None:
    with pytest.raises(InputError) as caught:
        models["criteria"].predict(_rows(("FATIGUE", "secret"), (given, "secret"), (given, "secret")))
    assert caught.value.problems == [
        f"input row 1, column criterion: got {given!r}, which is no criterion of this model; did you mean {meant}?"
    ]


@pytest.mark.parametrize("agent", MODELS)
def test_answer_to_a_criterion_in_free_text_is_marked(models: dict[str, TextModel], agent: str) -> None:
    rows = [("FATIGUE", "so tired"), (CRITERIA["FATIGUE"], "so tired"), ("sleep all day", "so tired")]
    assert models[agent].predict(_rows(*rows))["free_text"].tolist() == [False, False, True]


@given(st.text("abC_ -", min_size=2, max_size=8), st.data())
def test_names_with_one_edit_are_one_letter_off(name: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(name) - 1))
    edits = [
        name[:place] + name[place + 1 :],
        name[:place] + "x" + name[place:],
        name[:place] + "x" + name[place + 1 :],
        name[:place] + name[place : place + 2][::-1] + name[place + 2 :],
    ]
    assert all(_is_one_letter_off(edit, name) or edit == name for edit in edits)
    assert not _is_one_letter_off(f"xy{name}z", name)


@pytest.mark.parametrize(
    ("given", "names", "nearest"),
    [
        ("a2", ["A1", "A2", "A3"], "A2"),
        ("A 3", ["A1", "A2", "A3"], "A3"),
        ("sleep2", ["SLEEP", "SLEEP_2"], "SLEEP_2"),
        ("A4", ["A1", "A2", "A3"], None),
        ("C", ["A", "B"], None),
        ("", ["A"], None),
        ("FA\u0301TIGA", ["F\u00c1TIGA"], "F\u00c1TIGA"),
        ("tired of life", ["TIRED"], None),
    ],
)
def test_nearest_name_is_the_equal_one_before_one_with_another_letter(
    given: str, names: list[str], nearest: str | None
) -> None:
    assert _nearest(given, names) == nearest


@pytest.mark.parametrize("agent", MODELS)
def test_empty_table_has_the_output_types(models: dict[str, TextModel], agent: str) -> None:
    one, none = models[agent].predict(_rows(("FATIGUE", "secret"))), models[agent].predict(pd.DataFrame())
    assert none.empty
    kinds = {"str": "object"}  # newer pandas
    assert [kinds.get(str(kind), str(kind)) for kind in one.dtypes] == [str(kind) for kind in none.dtypes]
    assert list(none.columns) == list(one.columns)


@pytest.fixture
def server(saved: Path, tmp_path: Path) -> Iterator[str]:
    """Run `mlflow models serve` where this package and its dependencies cannot be imported; return the URL."""
    (tmp_path / "sitecustomize.py").write_text(_ABSENT)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        str(saved / "evidence"),
        "--env-manager",
        "local",
    ]
    command += ["-h", "127.0.0.1", "-p", str(port)]
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(tmp_path)}
    with run_server(command, port, "/ping", tmp_path / "server.log", environment) as address:
        yield f"{address}/invocations"


_ABSENT = """
import sys


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"lightning_hpo", "lightning", "transformers", "torchmetrics", "optuna"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Absent())
"""


def _ask(url: str, rows: Any, params: dict[str, Any]) -> tuple[int, str]:
    body = json.dumps({"dataframe_records": rows, "params": params}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_scoring_server_needs_no_package_of_ours(server: str, models: dict[str, TextModel], tmp_path: Path) -> None:
    table = _rows(*TABLE)
    records = table.to_dict("records")
    status, body = _ask(server, records, {})
    assert status == 200
    answers = pd.DataFrame(json.loads(body)["predictions"])
    pd.testing.assert_frame_equal(answers, models["evidence"].predict(table), rtol=1e-5, atol=1e-6)
    status, body = _ask(server, records[:1], {"null_threshold": -1e6, "top_k": 2})
    assert status == 200
    assert json.loads(body)["predictions"][0]["null"]
    status, body = _ask(server, [*records[:1], {"criterion": "FATIGUE", "post": " "}], {})
    assert status == 200
    row, unanswered = json.loads(body)["predictions"]
    assert unanswered == {**dict.fromkeys(row), "problem": "post: empty or not a text"}
    for rows, params, problem in (
        (records[:1], {"top_k": 0}, "parameter top_k: got 0; it must be from 1 to 1000"),
        ([{"criterion": "FATIGUE", "text": POSTS[0]}], {}, "input: no column post; use the columns criterion and post"),
        ([{"criterion": "fatigue", "post": POSTS[0]}], {}, "no criterion of this model; did you mean FATIGUE?"),
    ):
        status, body = _ask(server, rows, params)
        assert status == 400
        assert problem in body
        assert POSTS[0] not in body
    assert POSTS[0] not in (tmp_path / "server.log").read_text()


def test_scoring_server_accepts_the_threshold(saved: Path) -> None:
    model = mlflow.pyfunc.load_model(str(saved / "criteria"))
    body = json.dumps({"dataframe_records": _rows(*TABLE).to_dict("records"), "params": {"threshold": 0.0}})
    schema = model.metadata.get_input_schema()
    answered = scoring_server.invocations(body, "application/json", model, schema)  # type: ignore[no-untyped-call]
    predictions = json.loads(answered.response)["predictions"]
    assert [set(answer) for answer in predictions] == [
        {"met", "probability", "threshold", "free_text", "problem"}
    ] * len(TABLE)
    assert all(answer["met"] for answer in predictions)
