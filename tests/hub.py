"""The Hugging Face hub with tiny random encoders under real names, so that the shipped configs run unchanged.

`repositories` has the files that each real repository has on its main branch, without those of other frameworks.
`write_hub` writes them as a download leaves them in the cache, and `Hub` serves them over HTTP.
"""

import hashlib
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import sentencepiece
import torch
from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForPreTraining,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    ElectraConfig,
    ElectraForPreTraining,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from lightning_hpo.agents.network.encoder import quiet_transformers

Files = dict[str, bytes]

_BERT = (
    "config.json",
    "model.safetensors",
    "pytorch_model.bin",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
_ROBERTA = (*_BERT[:-1], "merges.txt", "vocab.json")
_ELECTRA = tuple(name for name in _BERT if name != "model.safetensors")
_DEBERTA = ("config.json", "pytorch_model.bin", "spm.model", "tokenizer_config.json")
# Family, and the files on the main branch.
ENCODERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "bert-base-uncased": ("bert", _BERT),
    "bert-large-uncased": ("bert", _BERT),
    "roberta-base": ("roberta", _ROBERTA),
    "roberta-large": ("roberta", _ROBERTA),
    "microsoft/deberta-v3-base": ("deberta", _DEBERTA),
    "microsoft/deberta-v3-large": ("deberta", _DEBERTA),
    "google/electra-base-discriminator": ("electra", _ELECTRA),
    "google/electra-large-discriminator": ("electra", _ELECTRA),
    "xlm-roberta-base": ("xlm-roberta", (*_BERT[:-1], "sentencepiece.bpe.model")),
}

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SIZES: dict[str, Any] = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
_VOCABULARY = 2000


def commit_of(name: str) -> str:
    """The commit of an encoder's main branch."""
    return hashlib.sha1(name.encode()).hexdigest()


def repositories(texts: Sequence[str], layers: int = 1) -> dict[str, Files]:
    """Make every encoder of the shipped search spaces, with a vocabulary trained on the texts."""
    torch.manual_seed(0)
    made = {family: make(texts, layers) for family, make in _FAMILIES.items()}
    return {name: {file: made[family][file] for file in files} for name, (family, files) in ENCODERS.items()}


def write_hub(cache: Path, texts: Sequence[str], layers: int = 1) -> None:
    """Write a cache that holds the main branch of every encoder."""
    for name, files in repositories(texts, layers).items():
        write_cache(cache, name, files)


def write_cache(cache: Path, name: str, files: Files) -> None:
    """Write the files of an encoder as the hub's client does: as blobs, with links from the snapshot of the commit."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit_of(name)
    for folder in (repository / "refs", repository / "blobs", snapshot):
        folder.mkdir(parents=True)
    (repository / "refs/main").write_text(commit_of(name), encoding="utf-8")
    for file, content in files.items():
        blob = repository / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (snapshot / file).symlink_to(Path("../../blobs", blob.name))


def encoder_in(cache: Path, name: str) -> str:
    """Return the folder of an encoder, for processes that have already read the Hugging Face settings."""
    return str(cache / f"models--{name.replace('/', '--')}" / "snapshots" / commit_of(name))


def _bert(texts: Sequence[str], layers: int) -> Files:
    return _word_pieces(texts, lambda size: BertForPreTraining(BertConfig(**_sizes(size, layers))))


def _electra(texts: Sequence[str], layers: int) -> Files:
    return _word_pieces(
        texts, lambda size: ElectraForPreTraining(ElectraConfig(**_sizes(size, layers), embedding_size=16))
    )


def _word_pieces(texts: Sequence[str], make: Callable[[int], PreTrainedModel]) -> Files:
    trained = BertWordPieceTokenizer(lowercase=True)
    trained.train_from_iterator(texts, vocab_size=_VOCABULARY, special_tokens=list(_SPECIAL), show_progress=False)
    vocabulary = "".join(f"{word}\n" for word in sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__))
    files = {"vocab.txt": vocabulary.encode()}
    config = {"do_lower_case": True, "model_max_length": 512}
    return _with_tokenizer(files, config, make(trained.get_vocab_size()))


def _roberta(texts: Sequence[str], layers: int) -> Files:
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(texts, vocab_size=_VOCABULARY, special_tokens=special, show_progress=False)
    with tempfile.TemporaryDirectory() as folder:
        trained.save_model(folder)
        files = {name: Path(folder, name).read_bytes() for name in ("vocab.json", "merges.txt")}
    sizes = _sizes(trained.get_vocab_size(), layers) | {"max_position_embeddings": 514, "pad_token_id": 1}
    return _with_tokenizer(files, {"model_max_length": 512}, RobertaForMaskedLM(RobertaConfig(**sizes)))


def _xlm_roberta(texts: Sequence[str], layers: int) -> Files:
    pieces = _sentence_pieces(texts)
    # Its ids differ by one from those of the file, and <mask> is the last.
    size = sentencepiece.SentencePieceProcessor(model_proto=pieces).get_piece_size() + 2
    sizes = _sizes(size, layers) | {"max_position_embeddings": 514, "pad_token_id": 1}
    model = XLMRobertaForMaskedLM(XLMRobertaConfig(**sizes))
    return _with_tokenizer({"sentencepiece.bpe.model": pieces}, {"model_max_length": 512}, model)


def _deberta(texts: Sequence[str], layers: int) -> Files:
    names = {"pad_id": "[PAD]", "bos_id": "[CLS]", "eos_id": "[SEP]", "unk_id": "[UNK]"}
    ids = {key: place for place, key in enumerate(names)}
    pieces = _sentence_pieces(texts, **ids, **{key.replace("id", "piece"): name for key, name in names.items()})
    size = sentencepiece.SentencePieceProcessor(model_proto=pieces).get_piece_size() + 1  # [MASK]
    relative: dict[str, Any] = {
        "relative_attention": True,
        "position_biased_input": False,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 256,
        "norm_rel_ebd": "layer_norm",
        "type_vocab_size": 0,
    }
    config = DebertaV2Config(**_sizes(size, layers), **relative)
    files = {"spm.model": pieces, "tokenizer_config.json": b'{"do_lower_case": false, "vocab_type": "spm"}'}
    return files | _model_files(DebertaV2ForMaskedLM(config))


_FAMILIES: dict[str, Callable[[Sequence[str], int], Files]] = {
    "bert": _bert,
    "electra": _electra,
    "roberta": _roberta,
    "xlm-roberta": _xlm_roberta,
    "deberta": _deberta,
}


def _sizes(vocabulary: int, layers: int) -> dict[str, Any]:
    return {**_SIZES, "max_position_embeddings": 512, "vocab_size": vocabulary, "num_hidden_layers": layers}


def _sentence_pieces(texts: Sequence[str], **options: Any) -> bytes:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=written,
        vocab_size=_VOCABULARY,
        hard_vocab_limit=False,
        max_sentence_length=2**16,
        minloglevel=2,
        **options,
    )
    return written.getvalue()


def _with_tokenizer(files: Files, config: dict[str, Any], model: PreTrainedModel) -> Files:
    """Add the tokenizer.json that transformers makes of a vocabulary, and the files of the model."""
    files = {**files, **_model_files(model), "tokenizer_config.json": json.dumps(config).encode()}
    with tempfile.TemporaryDirectory() as folder:
        for name in files:
            Path(folder, name).write_bytes(files[name])
        AutoTokenizer.from_pretrained(folder).save_pretrained(Path(folder, "fast"))
        return {**files, "tokenizer.json": Path(folder, "fast/tokenizer.json").read_bytes()}


def _model_files(model: PreTrainedModel) -> Files:
    pickled = io.BytesIO()
    torch.save(model.state_dict(), pickled)
    with tempfile.TemporaryDirectory() as folder, quiet_transformers():
        model.save_pretrained(folder)
        files = {name: Path(folder, name).read_bytes() for name in ("config.json", "model.safetensors")}
    return {**files, "pytorch_model.bin": pickled.getvalue()}


@dataclass
class Hub:
    """A server that answers for files as huggingface.co does.

    Attributes:
        repositories: Files of the main branch, by the name of the encoder.
        commits: Commit of the main branch, by name, where it is not `commit_of(name)`.
        moved: New name of a repository, by its old one.
        gated: Names of the repositories that need a login.
        requests: Method and path of every request.
    """

    repositories: dict[str, Files]
    commits: dict[str, str] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    broken: bool = False

    def __enter__(self) -> "Hub":
        hub = self

        class Handler(_Handler):
            served = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    served: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        hub = self.served
        hub.requests.append(f"{self.command} {self.path}")
        name, _, rest = self.path.lstrip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        if hub.broken:
            return self._send(503, {})
        if name in hub.moved:
            return self._send(307, {"Location": f"/{hub.moved[name]}/resolve/{revision}/{file}"})
        if name not in hub.repositories:
            return self._send(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        if name in hub.gated:
            message = f"Access to model {name} is restricted. You must be authenticated to access it."
            return self._send(401, {"X-Error-Code": "GatedRepo", "X-Error-Message": message})
        commit = hub.commits.get(name, commit_of(name))
        if revision not in ("main", commit):
            return self._send(404, {"X-Error-Code": "RevisionNotFound"})
        content = hub.repositories[name].get(file)
        if content is None:
            return self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": commit}
        return self._send(200, headers, content, with_body=with_body)

    def _send(self, status: int, headers: dict[str, str], content: bytes = b"", *, with_body: bool = False) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""
