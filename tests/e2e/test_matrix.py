"""The product of wrappings, ciphers, transports and address families, with a stock client in each cell."""

from __future__ import annotations

import pytest
from helpers.lab import Lab
from helpers.matrix import SLOTS, TRANSPORTS, Cell, Matrix, Outcome, all_cells, failures, table

KINDS = (
    "plain",
    "tls-auth SHA256",
    "tls-auth SHA512, no direction",
    "tls-crypt",
    "tls-crypt-v2",
    "tls-crypt-v2 beside plain",
)


def check(outcomes: list[Outcome]) -> None:
    print(f"\n{table(outcomes)}")
    failed = failures(outcomes)
    assert not failed, "\n\n".join(failed)


@pytest.mark.timeout(300)
def test_each_wrapping_with_each_cipher_over_each_transport_and_family():
    with Lab(clients=SLOTS) as lab:
        check(Matrix(lab).play(all_cells()))


def test_keys_are_renewed_and_clients_come_back_under_each_wrapping():
    with Lab(clients=SLOTS) as lab:
        cells = [Cell(kind, "AES-256-GCM", transport, 4) for kind in KINDS for transport in TRANSPORTS]
        check(Matrix(lab, renegotiate_s=5).play_longer(cells))
