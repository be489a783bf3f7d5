"""How a CA counts its revocation lists."""

from cryptography import x509


def crl_number(crl: x509.CertificateRevocationList) -> int | None:
    """None: it does not."""
    try:
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return None
