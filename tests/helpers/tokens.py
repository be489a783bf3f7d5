"""Tokens as a gateway writes them, with its own key: a stock client that is sent away forgets the one it had."""

from __future__ import annotations

import hashlib
from pathlib import Path

from helpers.lab import GatewayProcess

from cvpnd.auth.tokens import Token, TokenKey, TokenOwner
from cvpnd.store import Store


def token_key(state: str, key_file: Path | None = None) -> TokenKey:
    """Of the gateways on that database."""
    store = Store.open(state, key_file)
    try:
        return TokenKey(store.gateway_secret("auth-token"))
    finally:
        store.close()


def written_token(gateway: GatewayProcess, token: Token, username: str, password_hash: str, state: str = "") -> str:
    """For a local user who has a password only."""
    (endpoint,) = gateway.ctl_json("endpoint", "list")
    stamp = hashlib.sha256(password_hash.encode()).digest()
    owner = TokenOwner(endpoint["endpoint_id"], "local", username, "", stamp)
    return token_key(state or f"sqlite:///{gateway.directory}/state.db").write(token, owner)
