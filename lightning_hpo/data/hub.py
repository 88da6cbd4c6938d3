"""Load tokenizers from the Hugging Face hub or a folder."""

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import constants
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lightning_hpo.exceptions import InputError

__all__ = ["load_tokenizer", "local_files_only"]

_WHAT_WORKS = "use the hub id of an encoder, or a folder with its config.json and tokenizer.json"


def local_files_only(name: str) -> bool:
    """Return whether the hub is unreachable or not needed: the value for `from_pretrained(local_files_only=...)`.

    Without a network, the hub's client retries each file for most of a minute. One DNS lookup finds out much faster.
    """
    if Path(name).is_dir() or constants.HF_HUB_OFFLINE:
        return True
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return False
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError:
        return True
    return False


def load_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Load the fast tokenizer of an encoder, given its hub id or folder.

    Raises:
        InputError: The encoder does not exist, or it has no fast tokenizer.
    """
    is_path = name.startswith((".", "/", "~")) or name.count("/") != name.strip("/").count("/") or name.count("/") > 1
    if is_path and not Path(name).is_dir():
        raise InputError(f"--model.name: the folder {name!r} does not exist; {_WHAT_WORKS}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, use_fast=True, trust_remote_code=False, local_files_only=local_files_only(name)
        )
    except (OSError, ValueError, KeyError, ImportError, TypeError, AttributeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
        raise InputError(f"--model.name: no tokenizer can be loaded from {name!r} ({reason}); {_WHAT_WORKS}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(f"--model.name: the tokenizer of {name!r} is not a fast tokenizer; {_WHAT_WORKS}")
    # From a folder without tokenizer files, transformers makes a tokenizer that only knows its special tokens.
    if len(tokenizer) <= len(tokenizer.all_special_tokens) + 1:
        raise InputError(f"--model.name: {name!r} contains no tokenizer; {_WHAT_WORKS}")
    if not tokenizer("probe", add_special_tokens=False)["input_ids"]:
        raise InputError(f"--model.name: the tokenizer of {name!r} knows no words; {_WHAT_WORKS}")
    return tokenizer
