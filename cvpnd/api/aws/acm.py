"""ACM: certificates that are imported with their keys."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cvpnd.api.aws.call import Answer, Call, moment, tag_list, tag_map
from cvpnd.api.aws.errors import ApiError
from cvpnd.auth.crl_scope import UNREADABLE
from cvpnd.endpoints.model import ImportedCertificateView

_ARN = re.compile(r"arn:aws[a-z-]*:acm:[a-z0-9-]+:\d{12}:certificate/[0-9a-f-]{36}")
_PURPOSES = {
    ExtendedKeyUsageOID.SERVER_AUTH: "TLS_WEB_SERVER_AUTHENTICATION",
    ExtendedKeyUsageOID.CLIENT_AUTH: "TLS_WEB_CLIENT_AUTHENTICATION",
}
_USAGES = {
    "digital_signature": "DIGITAL_SIGNATURE",
    "content_commitment": "NON_REPUDIATION",
    "key_encipherment": "KEY_ENCIPHERMENT",
    "data_encipherment": "DATA_ENCIPHERMENT",
    "key_agreement": "KEY_AGREEMENT",
    "key_cert_sign": "CERTIFICATE_SIGNING",
    "crl_sign": "CRL_SIGNING",
}


async def import_certificate(call: Call) -> Answer:
    arn = call.get("CertificateArn")
    tags = tag_map(call.get("Tags"))
    if arn is not None and tags:
        raise ApiError("ValidationException", "Tags cannot be given when a certificate is imported again")
    view = await call.operations.import_certificate(
        call.get("Certificate"),
        call.get("PrivateKey"),
        call.get("CertificateChain", b""),
        arn=_arn(call) if arn is not None else None,
        region=call.region,
        tags=tags,
    )
    return {"CertificateArn": view.arn}


async def describe_certificate(call: Call) -> Answer:
    view = await call.operations.show_imported_certificate(_arn(call))
    return {"Certificate": _detail(view, call)}


async def get_certificate(call: Call) -> Answer:
    view = await call.operations.show_imported_certificate(_arn(call))
    return {"Certificate": view.certificate, "CertificateChain": view.chain or None}


async def list_certificates(call: Call) -> Answer:
    views = [
        view
        for view in await call.operations.list_imported_certificates()
        if _is_wanted(_parsed(view), call.parameters)
    ]
    if ("SortBy" in call.parameters) != ("SortOrder" in call.parameters):
        raise ApiError("ValidationException", "SortBy and SortOrder go together")
    if call.get("SortOrder") == "DESCENDING":
        views.reverse()
    page, token = call.page(views, size="MaxItems", default=100)
    return {"CertificateSummaryList": [_summary(view) for view in page], "NextToken": token}


def _is_wanted(certificate: x509.Certificate, parameters: Mapping[str, Any]) -> bool:
    """By every filter that is given. All certificates here are imported with keys of their owners'."""
    includes = parameters.get("Includes", {})
    facts: list[tuple[Sequence[str] | None, Sequence[str | None]]] = [
        (parameters.get("CertificateStatuses"), [_status(certificate)]),
        (parameters.get("CertificateKeyPairOrigins"), ["CUSTOMER_PROVIDED"]),
        (parameters.get("RootHierarchyTypes"), []),
        (includes.get("keyTypes"), [_algorithm(certificate)]),
        (includes.get("keyUsage"), ["ANY", *_usages(certificate)]),
        (includes.get("extendedKeyUsage"), ["ANY", *(name for name, _ in _purposes(certificate))]),
        ([includes["exportOption"]] if "exportOption" in includes else None, ["DISABLED"]),
        ([includes["managedBy"]] if "managedBy" in includes else None, []),
    ]
    return all(not wanted or any(each in wanted for each in there) for wanted, there in facts)


async def delete_certificate(call: Call) -> Answer:
    await call.operations.delete_imported_certificate(_arn(call))
    return {}


async def add_tags(call: Call) -> Answer:
    await call.operations.set_tags(_arn(call), tag_map(call.get("Tags")))
    return {}


async def remove_tags(call: Call) -> Answer:
    there = (await call.operations.list_tags()).get(_arn(call), {})
    keys = [tag["Key"] for tag in call.get("Tags") if tag.get("Value") in (None, there.get(tag["Key"]))]
    await call.operations.remove_tags(_arn(call), keys)
    return {}


async def list_tags(call: Call) -> Answer:
    view = await call.operations.show_imported_certificate(_arn(call))
    return {"Tags": tag_list(view.tags)}


def _arn(call: Call) -> str:
    arn = str(call.get("CertificateArn"))
    if not _ARN.fullmatch(arn):
        raise ApiError("InvalidArnException", f"{arn} is no ARN of a certificate")
    return arn


def _parsed(view: ImportedCertificateView) -> x509.Certificate:
    return x509.load_pem_x509_certificate(view.certificate.encode())


def _status(certificate: x509.Certificate) -> str:
    return "EXPIRED" if certificate.not_valid_after_utc < datetime.now(UTC) else "ISSUED"


def _common(view: ImportedCertificateView, certificate: x509.Certificate) -> dict[str, Any]:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    alternatives = _alternative_names(certificate)
    domain = str(names[0].value) if names else next(iter(alternatives), None)
    return {
        "CertificateArn": view.arn,
        "DomainName": domain,
        "Status": _status(certificate),
        "Type": "IMPORTED",
        "KeyAlgorithm": _algorithm(certificate),
        "NotBefore": certificate.not_valid_before_utc,
        "NotAfter": certificate.not_valid_after_utc,
        "CreatedAt": moment(view.created_at),
        "ImportedAt": moment(view.imported_at),
        "RenewalEligibility": "INELIGIBLE",
    }


def _summary(view: ImportedCertificateView) -> Answer:
    certificate = _parsed(view)
    return {
        **_common(view, certificate),
        "SubjectAlternativeNameSummaries": _alternative_names(certificate),
        "HasAdditionalSubjectAlternativeNames": False,
        "KeyUsages": _usages(certificate),
        "ExtendedKeyUsages": [name for name, _ in _purposes(certificate)],
        "InUse": bool(view.in_use_by),
    }


def _detail(view: ImportedCertificateView, call: Call) -> Answer:
    certificate = _parsed(view)
    algorithm = certificate.signature_hash_algorithm
    account = view.arn.split(":")[4]
    return {
        **_common(view, certificate),
        "SubjectAlternativeNames": _alternative_names(certificate),
        "Serial": _colons(certificate.serial_number),
        "Subject": certificate.subject.rfc4514_string(),
        "Issuer": certificate.issuer.rfc4514_string(),
        "SignatureAlgorithm": None if algorithm is None else algorithm.name.upper(),
        "InUseBy": [f"arn:aws:ec2:{call.region}:{account}:client-vpn-endpoint/{each}" for each in view.in_use_by],
        "KeyUsages": [{"Name": name} for name in _usages(certificate)],
        "ExtendedKeyUsages": [{"Name": name, "OID": oid} for name, oid in _purposes(certificate)],
    }


def _alternative_names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, *UNREADABLE):
        return []


def _algorithm(certificate: x509.Certificate) -> str | None:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA_{key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return {"secp256r1": "EC_prime256v1"}.get(key.curve.name, f"EC_{key.curve.name}")
    return None


def _usages(certificate: x509.Certificate) -> list[str]:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, *UNREADABLE):
        return []
    return [name for attribute, name in _USAGES.items() if getattr(usage, attribute)]


def _purposes(certificate: x509.Certificate) -> list[tuple[str, str]]:
    try:
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, *UNREADABLE):
        return []
    return [(_PURPOSES.get(oid, "CUSTOM"), oid.dotted_string) for oid in purposes]


def _colons(number: int) -> str:
    text = f"{number:x}"
    text = text.zfill(len(text) + len(text) % 2)
    return ":".join(text[i : i + 2] for i in range(0, len(text), 2))


HANDLERS = {
    "ImportCertificate": import_certificate,
    "DescribeCertificate": describe_certificate,
    "GetCertificate": get_certificate,
    "ListCertificates": list_certificates,
    "DeleteCertificate": delete_certificate,
    "AddTagsToCertificate": add_tags,
    "RemoveTagsFromCertificate": remove_tags,
    "ListTagsForCertificate": list_tags,
}
