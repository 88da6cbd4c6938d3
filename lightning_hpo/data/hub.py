"""Find encoders and their tokenizers: in a folder, in the cache of the Hugging Face hub, or on the hub."""

import json
import os
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lightning_hpo.exceptions import InputError

__all__ = ["WHAT_WORKS", "encoder_folder", "load_tokenizer", "local_files_only", "resolve_revision"]

WHAT_WORKS = "give a hub id such as roberta-base, or a folder with config.json, model.safetensors and a fast tokenizer"
"""What `--model.name` accepts, for the end of a refusal."""

_COMMIT = re.compile("[0-9a-f]{40}")
_VOCABULARIES = ("tokenizer.json", "spm.model", "sentencepiece.bpe.model", "spiece.model", "vocab.txt", "vocab.json")
_SMALL = ("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
# In the order in which transformers looks for them.
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def local_files_only(name: str) -> bool:
    """Return whether the hub is unreachable or not needed.

    Without a network, the hub's client retries each file for most of a minute. One DNS lookup finds out much faster.
    """
    if Path(name).expanduser().is_dir() or constants.HF_HUB_OFFLINE:
        return True
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return False
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError:
        return True
    return False


def resolve_revision(name: str, revision: str | None = None) -> str | None:
    """Return the commit of an encoder on the hub, and download its files; None for a local folder.

    Args:
        name: Hub id or folder.
        revision: Branch, tag or commit; None for the main branch.

    Raises:
        InputError: The encoder cannot be found.
    """
    folder = encoder_folder(name, revision)
    return None if folder == Path(name).expanduser() else folder.name


def encoder_folder(name: str, revision: str | None = None) -> Path:
    """Return the folder with the files of an encoder. They are downloaded if the cache does not hold them.

    A commit that is in the cache needs no network. For a branch, the cache is used if the hub does not answer.

    Raises:
        InputError: The encoder cannot be found. The message says why: no such encoder, no login, no network.
    """
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return folder
    if name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1:
        raise InputError(f"--model.name: got {name!r}, which is not a folder, and no hub id; {WHAT_WORKS}")
    try:
        cached = _cached(name, revision or constants.DEFAULT_REVISION)
        offline = local_files_only(name)
        if cached and (offline or _COMMIT.fullmatch(revision or "")):
            return cached
        if offline:
            raise InputError(f"--model.name: got {name!r}, which is not a folder, and {_why_offline()}; {WHAT_WORKS}")
        return _download(name, revision)
    except HFValidationError as error:
        raise InputError(f"--model.name: got {name!r}, which is not a folder, and no hub id; {WHAT_WORKS}") from error


def _why_offline() -> str:
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set while its files are not all in the cache"
    return f"{constants.ENDPOINT} cannot be reached while its files are not all in the cache"


def _cached(name: str, revision: str) -> Path | None:
    found = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) and _is_complete(Path(found).parent) else None


def _is_complete(folder: Path) -> bool:
    """Return whether a snapshot has a config, a vocabulary and all weights. Weights are downloaded last."""
    weights = next((folder / name for name in _WEIGHTS if (folder / name).exists()), None)
    parts = [folder / part for part in _shards(weights)] if weights else []
    has_vocabulary = any((folder / name).exists() for name in _VOCABULARIES)
    return weights is not None and has_vocabulary and all(part.exists() for part in parts)


def _shards(index: Path) -> list[str]:
    if not index.name.endswith(".index.json"):
        return []
    return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))


def _download(name: str, revision: str | None) -> Path:
    try:
        # The commit of the first file is that of all: the branch may move in the meantime.
        folder = Path(hf_hub_download(name, "config.json", revision=revision)).parent
        if not _is_complete(folder):
            _download_rest(name, folder)
        return folder
    except GatedRepoError as error:
        raise InputError(
            f"--model.name: {name!r} needs a login: accept its conditions on {constants.ENDPOINT}/{name}, then run "
            "`hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"--model.name: got {name!r}, which is not a folder, and the Hugging Face hub returned no such encoder (a "
            f"private one needs `hf auth login`); {WHAT_WORKS}"
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(f"--model.revision: got {revision!r}, which {name} does not have; use main") from error
    except LocalEntryNotFoundError as error:  # before its base class, which means that the hub has no such file
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise InputError(
            f"--model.name: {name!r} cannot be downloaded from {constants.ENDPOINT}, and is not in the cache: {reason}"
        ) from error
    except EntryNotFoundError as error:
        raise InputError(f"--model.name: {name!r} has no config.json on the hub; {WHAT_WORKS}") from error


def _download_rest(name: str, folder: Path) -> None:
    for file in (*_SMALL, *_VOCABULARIES):
        _download_file(name, file, folder.name)
    for file in _WEIGHTS:
        path = _download_file(name, file, folder.name)
        if path is not None:
            for part in _shards(path):
                hf_hub_download(name, part, revision=folder.name)
            return


def _download_file(name: str, file: str, commit: str) -> Path | None:
    """Download a file; return None if the repository does not have it."""
    try:
        return Path(hf_hub_download(name, file, revision=commit))
    except LocalEntryNotFoundError:
        raise
    except EntryNotFoundError:
        return None


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerFast:
    """Load the fast tokenizer of an encoder, given its hub id or folder.

    Raises:
        InputError: The encoder does not exist, or it has no fast tokenizer.
    """
    folder = encoder_folder(name, revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), use_fast=True, trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, KeyError, ImportError, TypeError, AttributeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
        raise InputError(f"--model.name: no tokenizer can be loaded from {name!r} ({reason}); {WHAT_WORKS}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(f"--model.name: the tokenizer of {name!r} is not a fast tokenizer; {WHAT_WORKS}")
    # From a folder without tokenizer files, transformers makes a tokenizer that only knows its special tokens.
    if len(tokenizer) <= len(tokenizer.all_special_tokens) + 1:
        raise InputError(f"--model.name: {name!r} contains no tokenizer; {WHAT_WORKS}")
    if not tokenizer("probe", add_special_tokens=False)["input_ids"]:
        raise InputError(f"--model.name: the tokenizer of {name!r} knows no words; {WHAT_WORKS}")
    return tokenizer
