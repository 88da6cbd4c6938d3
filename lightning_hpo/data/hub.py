"""Whether a model's files can come from the hub, without waiting for its retries."""

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import constants

__all__ = ["local_files_only"]


def local_files_only(name: str) -> bool:
    """Whether to look for an encoder on this machine alone: for `from_pretrained(local_files_only=...)`.

    Without a network the hub's client tries each file again for most of a minute; one look-up of its name says as much.

    Args:
        name: Hub id or folder of the encoder.
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
