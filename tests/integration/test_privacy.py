"""Another user of the machine reads no post, whatever a study and its commands have written."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from lightning_hpo.cli import main
from lightning_hpo.data.posts import read_posts
from tests.study_sandbox import StudySandbox
from tests.tiny import tiny_config, write_tiny_corpus, write_tiny_encoder

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

# The folder as the root of the file system: those above it are pytest's, which nobody else may enter.
_ANOTHER_USER = """
import json, os, sys
os.chroot(".")
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
texts = [bytes.fromhex(text) for text in json.load(sys.stdin)]
read, with_posts = [], []
for folder, _, names in os.walk("/"):
    for path in (os.path.join(folder, name) for name in names):
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError:
            continue
        read.append(path)
        if any(text in content for text in texts):
            with_posts.append(path)
print(json.dumps([read, with_posts]))
"""

_KILLED = """
import hashlib, sys
from pathlib import Path
import numpy as np
from lightning_hpo.data.cache import Cache

def write():
    yield np.frombuffer(Path("posts.csv").read_bytes(), np.uint8), [1]
    print("written", flush=True)
    sys.stdin.read()

posts = Path("posts.csv")
Cache(posts, hashlib.sha256(posts.read_bytes()).hexdigest()[:32]).ragged("killed", write, np.uint8)
"""


def _parts_of_posts(folder: Path) -> list[str]:
    """Return the middle of each post, as text and as tokens, in hexadecimal digits."""
    tokenizer = Tokenizer.from_file(str(folder / "encoder/tokenizer.json"))
    texts = [" ".join(text.split()[2:7]) for text in dict(read_posts(folder / "posts.csv")).values()]
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    tokens = [np.array(part, kind).tobytes() for part in ids for kind in (np.int32, np.int64)]
    return [part.hex() for part in [*map(str.encode, texts), *tokens]]


def _read_as_another_user(folder: Path, parts: list[str]) -> tuple[list[str], list[str]]:
    command = [sys.executable, "-c", _ANOTHER_USER]
    done = subprocess.run(command, cwd=folder, input=json.dumps(parts), capture_output=True, text=True, check=True)
    read, with_posts = json.loads(done.stdout)
    return read, with_posts


@pytest.fixture
def private(sandbox: StudySandbox, monkeypatch: pytest.MonkeyPatch) -> StudySandbox:
    """A folder that others may enter, with temporary files, and a corpus that they may not read."""
    folder = sandbox.folder
    folder.chmod(0o755)
    (folder / "tmp").mkdir()
    (folder / "tmp").chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(folder / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    write_tiny_encoder(folder / "encoder")
    write_tiny_corpus(folder)
    for name in ("posts.csv", "annotations.csv"):
        (folder / name).chmod(0o600)
    return sandbox


@pytest.mark.filterwarnings("ignore:Couldn't infer the batch indices")
def test_another_user_of_the_machine_reads_no_post(
    private: StudySandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a study deletes at the end of a trial stays when it is interrupted.
    monkeypatch.setattr("lightning_hpo.tracking.outbox.Outbox.close", lambda _: None)
    monkeypatch.setattr("lightning_hpo.tune.default_callbacks", lambda _: [])
    folder = private.folder
    config: dict[str, Any] = tiny_config("EvidenceAgent", "EvidenceDataModule")
    assert private.tune("first", "--study.n_trials", "1", config=config) == 0
    trial = folder / "outputs/first/trial_0"
    capsys.readouterr()
    assert main(["predict", "--config", f"{trial}/config.yaml", "--ckpt_path", f"{trial}/best.ckpt"]) == 0
    (folder / "predictions.jsonl").write_text(capsys.readouterr().out)
    with subprocess.Popen([sys.executable, "-c", _KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"written\n"
        killed.kill()

    parts = _parts_of_posts(folder)
    read, with_posts = _read_as_another_user(folder, parts)
    assert with_posts == []
    assert [path for path in read if "/.cache/" in path or path in ("/posts.csv", "/annotations.csv")] == []
    names = ("log.txt", "best.ckpt", "last.ckpt", "outbox.jsonl", "proof.log")
    assert {f"/outputs/first/trial_0/{name}" for name in names} < set(read)
    assert {"/outputs/first/study.log", "/mlflow.db", "/_optuna/dataaug.db", "/predictions.jsonl"} < set(read)
    assert any(path.startswith("/mlruns/") and path.endswith("/model.pt2") for path in read)

    (folder / "posts.csv").chmod(0o644)
    for path in (".cache", ".cache/lightning_hpo"):
        (folder / path).chmod(0o755)
    read_posts(folder / "posts.csv")
    _, with_posts = _read_as_another_user(folder, parts)  # the search finds them where it may
    assert "/posts.csv" in with_posts
    assert any(path.startswith("/.cache/lightning_hpo/posts.csv/posts-") for path in with_posts)
