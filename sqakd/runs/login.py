"""Test for a Weights & Biases login that never asks the user."""

from __future__ import annotations

import netrc
import os
from urllib.parse import urlparse


def has_login() -> bool:
    """Return whether wandb can go online without asking for a login.

    A login is an API key in the environment or an entry in the netrc file. WANDB_MODE can forbid going online. The
    server is the one in WANDB_BASE_URL, else wandb's own, which has had two names.
    """
    if os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    import wandb  # takes a second to import, and only a logger or a dashboard needs it

    own = os.environ.get("WANDB_BASE_URL")
    servers = [urlparse(url) for url in ([own] if own else [str(wandb.Settings().base_url), "https://api.wandb.ai"])]
    # An entry of the netrc file may name the host with its port or without.
    hosts = {name for server in servers for name in (server.netloc, server.hostname) if name}
    try:
        return not hosts.isdisjoint(netrc.netrc(os.environ.get("NETRC")).hosts)
    except (OSError, netrc.NetrcParseError):
        return False
