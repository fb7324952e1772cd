"""Whether Weights & Biases can be reached without asking for a login."""

from __future__ import annotations

import netrc
import os
from urllib.parse import urlparse


def has_login() -> bool:
    """Whether wandb can go online without asking: a key in the environment or in the netrc file, and no veto.

    The server is wandb's own, which has had two names, unless WANDB_BASE_URL says another.
    """
    if os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    import wandb  # takes a second to import, and only a logger or a dashboard needs it

    own = os.environ.get("WANDB_BASE_URL")
    servers = [urlparse(url) for url in ([own] if own else [str(wandb.Settings().base_url), "https://api.wandb.ai"])]
    hosts = {name for server in servers for name in (server.netloc, server.hostname) if name}  # with a port and without
    try:
        return not hosts.isdisjoint(netrc.netrc(os.environ.get("NETRC")).hosts)
    except (OSError, netrc.NetrcParseError):
        return False
