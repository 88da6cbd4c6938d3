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
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import sentencepiece
import torch
from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer, Tokenizer, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoTokenizer,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    DebertaV2ForQuestionAnswering,
    DebertaV2ForSequenceClassification,
    ElectraConfig,
    ElectraForPreTraining,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForQuestionAnswering,
)

from lightning_hpo.agents.network.encoder import quiet_transformers

Files = dict[str, bytes]

_MODEL = ("config.json", "tokenizer_config.json", "pytorch_model.bin")
_ROBERTA = (*_MODEL, "model.safetensors", "tokenizer.json", "merges.txt", "vocab.json")
_ELECTRA = (*_MODEL, "tokenizer.json", "vocab.txt")
_DEBERTA = (*_MODEL, "spm.model")
_FAST_DEBERTA = ("added_tokens.json", "special_tokens_map.json", "model.safetensors", "tokenizer.json", *_DEBERTA)
_NLI_DEBERTA = tuple(name for name in _FAST_DEBERTA if name != "pytorch_model.bin")
_ROBERTA_SQUAD = (*(name for name in _ROBERTA if name != "tokenizer.json"), "special_tokens_map.json")
_ETTIN = (*_MODEL, "special_tokens_map.json", "tokenizer.json")
# Family, and the files on the main branch.
ENCODERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "roberta-base": ("roberta", _ROBERTA),
    "roberta-large": ("roberta", _ROBERTA),
    "microsoft/deberta-v3-base": ("deberta", _DEBERTA),
    "microsoft/deberta-v3-large": ("deberta", _DEBERTA),
    "MoritzLaurer/deberta-v3-base-zeroshot-v2.0-c": ("deberta-nli", _NLI_DEBERTA),
    "deepset/deberta-v3-base-squad2": ("deberta-squad", _FAST_DEBERTA),
    "deepset/deberta-v3-large-squad2": ("deberta-squad", _FAST_DEBERTA),
    "deepset/roberta-base-squad2": ("roberta-squad", _ROBERTA_SQUAD),
    "jhu-clsp/ettin-encoder-150m": ("ettin", _ETTIN),
    "google/electra-base-discriminator": ("electra", _ELECTRA),
    "google/electra-large-discriminator": ("electra", _ELECTRA),
}

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SIZES: dict[str, Any] = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
_VOCABULARY = 2000


def commit_of(name: str) -> str:
    """The commit of an encoder's main branch."""
    return hashlib.sha1(name.encode()).hexdigest()


def repositories(texts: Sequence[str], layers: int = 1) -> dict[str, Files]:
    """Make every encoder of the shipped configs, with a vocabulary trained on the texts."""
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


def _electra(texts: Sequence[str], layers: int) -> Files:
    trained = BertWordPieceTokenizer(lowercase=True)
    trained.train_from_iterator(texts, vocab_size=_VOCABULARY, special_tokens=list(_SPECIAL), show_progress=False)
    vocabulary = "".join(f"{word}\n" for word in sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__))
    files = {"vocab.txt": vocabulary.encode()}
    config = {"do_lower_case": True, "model_max_length": 512}
    model = ElectraForPreTraining(ElectraConfig(**_sizes(trained.get_vocab_size(), layers), embedding_size=16))
    return _with_tokenizer(files | _model_files(model), config)


def _roberta(texts: Sequence[str], layers: int, kind: Any = RobertaForMaskedLM) -> Files:
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(texts, vocab_size=_VOCABULARY, special_tokens=special, show_progress=False)
    with tempfile.TemporaryDirectory() as folder:
        trained.save_model(folder)
        files = {name: Path(folder, name).read_bytes() for name in ("vocab.json", "merges.txt")}
    sizes = _sizes(trained.get_vocab_size(), layers) | {"max_position_embeddings": 514, "pad_token_id": 1}
    model = kind(RobertaConfig(**sizes, type_vocab_size=1))
    return _with_tokenizer(files | _model_files(model), {"model_max_length": 512})


def _roberta_squad(texts: Sequence[str], layers: int) -> Files:
    names = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "sep": "</s>", "pad": "<pad>", "cls": "<s>", "mask": "<mask>"}
    return _roberta(texts, layers, RobertaForQuestionAnswering) | {"special_tokens_map.json": _named(names)}


def _deberta(texts: Sequence[str], layers: int, kind: Any = DebertaV2ForMaskedLM) -> Files:
    names = {"pad_id": "[PAD]", "bos_id": "[CLS]", "eos_id": "[SEP]", "unk_id": "[UNK]"}
    ids = {key: place for place, key in enumerate(names)}
    pieces = _sentence_pieces(texts, **ids, **{key.replace("id", "piece"): name for key, name in names.items()})
    size = sentencepiece.SentencePieceProcessor(model_proto=pieces).get_piece_size() + 1  # [MASK]
    relative: dict[str, Any] = {
        "relative_attention": True,
        "position_biased_input": False,
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 256,
        "norm_rel_ebd": "layer_norm",
        "type_vocab_size": 0,
    }
    config = DebertaV2Config(**_sizes(size, layers), **relative)
    files = {"spm.model": pieces, "tokenizer_config.json": b'{"do_lower_case": false, "vocab_type": "spm"}'}
    return files | _model_files(kind(config))


def _fast_deberta(kind: Any, texts: Sequence[str], layers: int) -> Files:
    """The files that an older version of transformers wrote after a training."""
    files = _deberta(texts, layers, kind)
    names = {key: f"[{key.upper()}]" for key in ("cls", "mask", "pad", "sep", "unk")} | {"bos": "[CLS]", "eos": "[SEP]"}
    size = sentencepiece.SentencePieceProcessor(model_proto=files["spm.model"]).get_piece_size()
    described = {f"{key}_token": name for key, name in names.items()} | {
        "do_lower_case": False,
        "model_max_length": 512,
        "sp_model_kwargs": {},
        "split_by_punct": False,
        "tokenizer_class": "DebertaV2Tokenizer",
        "vocab_type": "spm",
    }
    made = _with_tokenizer({"spm.model": files["spm.model"], "config.json": files["config.json"]}, described)
    added = json.dumps({"[MASK]": size}).encode()
    return files | made | {"added_tokens.json": added, "special_tokens_map.json": _named(names)}


def _ettin(texts: Sequence[str], layers: int) -> Files:
    tokenizer = modernbert_tokenizer(texts, _VOCABULARY)
    ids = {name: tokenizer.convert_tokens_to_ids(f"[{name.upper()}]") for name in ("cls", "sep", "pad")}
    # The keys of the real config.
    config: dict[str, Any] = {
        "architectures": ["ModernBertForMaskedLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": ids["cls"],
        "classifier_activation": "gelu",
        "classifier_pooling": "mean",
        "cls_token_id": ids["cls"],
        "decoder_bias": True,
        "deterministic_flash_attn": False,
        "embedding_dropout": 0.0,
        "eos_token_id": ids["sep"],
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160000.0,
        "hidden_activation": "gelu",
        "initializer_cutoff_factor": 2.0,
        "local_attention": 128,
        "local_rope_theta": 160000.0,
        "mlp_bias": False,
        "mlp_dropout": 0.0,
        "model_type": "modernbert",
        "norm_bias": False,
        "norm_eps": 1e-05,
        "pad_token_id": ids["pad"],
        "position_embedding_type": "sans_pos",
        "sep_token_id": ids["sep"],
        **_sizes(len(tokenizer), layers),
        "max_position_embeddings": 7999,
    }
    with tempfile.TemporaryDirectory() as folder, quiet_transformers():
        tokenizer.save_pretrained(folder)
        files = {name: Path(folder, name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json")}
    names = {key: f"[{key.upper()}]" for key in ("cls", "mask", "pad", "sep", "unk")}
    model = _model_files(ModernBertForMaskedLM(ModernBertConfig(**config)))
    return files | model | {"config.json": json.dumps(config).encode(), "special_tokens_map.json": _named(names)}


def modernbert_tokenizer(texts: Sequence[str], size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE with BERT's special tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet)
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {f"{key}_token": f"[{key.upper()}]" for key in ("cls", "mask", "pad", "sep", "unk")}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)  # type: ignore[no-untyped-call]


def _named(names: dict[str, str]) -> bytes:
    return json.dumps({f"{key}_token": name for key, name in names.items()}).encode()


_FAMILIES: dict[str, Callable[[Sequence[str], int], Files]] = {
    "electra": _electra,
    "roberta": _roberta,
    "deberta": _deberta,
    "deberta-nli": partial(_fast_deberta, DebertaV2ForSequenceClassification),
    "deberta-squad": partial(_fast_deberta, DebertaV2ForQuestionAnswering),
    "roberta-squad": _roberta_squad,
    "ettin": _ettin,
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


def _with_tokenizer(files: Files, config: dict[str, Any]) -> Files:
    """Add tokenizer_config.json, and the tokenizer.json that transformers makes of the vocabulary."""
    files = {**files, "tokenizer_config.json": json.dumps(config).encode()}
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
