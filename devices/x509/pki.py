"""X.509 without rules: keys, certificates, requests, revocation lists. Imported late: it costs 160 ms."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from wire import clock
from wire.errors import Unprocessable

PEM = serialization.Encoding.PEM
CA_DAYS = 3_650
CRL_DAYS = 7  # the list is written anew long before; a broker that is cut off from the registry refuses all after that
BACK_S = 300  # clocks of devices are late
MIN_RSA_BITS = 2_048
_DAY = dt.timedelta(days=1)
_END_OF_LIST = b"-----END X509 CRL-----"
_SUBJECT = {
    "CN": NameOID.COMMON_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "SERIALNUMBER": NameOID.SERIAL_NUMBER,
}


@dataclass(slots=True, frozen=True)
class Presented:
    """What a certificate says."""

    fingerprint: str  # SHA-256 of all of it, hex
    serial: str  # hex
    start_ns: int
    end_ns: int
    certificate: x509.Certificate

    def name(self, id_from: str) -> str | None:
        """Give what it says for a device's id: a member of the subject, or the first DNS name (`SAN`)."""
        if id_from == "SAN":
            try:
                names = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            except (x509.ExtensionNotFound, ValueError):
                return None
            return next(iter(names.get_values_for_type(x509.DNSName)), None)
        try:
            found = self.certificate.subject.get_attributes_for_oid(_SUBJECT[id_from])
        except ValueError:  # a subject that cannot be read is read when it is asked for
            return None
        return str(found[0].value) if len(found) == 1 else None


def read(pem: str) -> Presented:
    """Read a certificate.

    Raises:
        Unprocessable: it is none.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        raise Unprocessable("not a certificate in PEM", code="bad_certificate", fields=["certificate"]) from None
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    digest, serial = certificate.fingerprint(hashes.SHA256()).hex(), f"{certificate.serial_number:x}"
    return Presented(digest, serial, _ns(start), _ns(end), certificate)


def is_authority(presented: Presented) -> bool:
    """Tell whether a certificate may sign others."""
    try:
        return presented.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def is_signed_by(presented: Presented, authority_pem: str) -> bool:
    """Tell whether an authority signed a certificate directly; validity is another question."""
    try:
        presented.certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority_pem.encode()))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def make_authority(name: str) -> tuple[str, bytes]:
    """Make an authority of our own; give its certificate and its private key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = _now()
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(seconds=BACK_S))
        .not_valid_after(now + CA_DAYS * _DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(is_authority=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return built.public_bytes(PEM).decode(), private


def sign(authority: tuple[str, bytes], request_pem: str, name: str, days: int, hosts: Sequence[str] = ()) -> str:
    """Sign a request: its key, under the name given here; what else it asks for is not heard.

    Args:
        authority: certificate and private key.
        request_pem: the CSR.
        name: becomes CN.
        days: of validity.
        hosts: names and addresses of a listener; none: for a device.

    Raises:
        Unprocessable: it is no request, does not hold its key, or has a weak one.
    """
    public_key = _key_of(request_pem)
    certificate = x509.load_pem_x509_certificate(authority[0].encode())
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
    now = _now()
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(certificate.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(seconds=BACK_S))
        .not_valid_after(min(now + days * _DAY, certificate.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(is_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
    return builder.sign(_load_key(authority[1]), hashes.SHA256()).public_bytes(PEM).decode()


def serves(cert_pem: bytes, key_pem: bytes, authority_pem: str, hosts: Sequence[str], days: int) -> bool:
    """Tell whether a listener can go on with its certificate and key for so many days, under these names."""
    try:
        certificate = x509.load_pem_x509_certificate(cert_pem)
        key = serialization.load_pem_private_key(key_pem, None)
        said = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority_pem.encode()))
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    lasts = certificate.not_valid_before_utc <= _now() < certificate.not_valid_after_utc - days * _DAY
    return lasts and key.public_key() == certificate.public_key() and {_host(host) for host in hosts} <= set(said)


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def make_list(authority: tuple[str, bytes], serials: list[str], number: int) -> str:
    """Make a revocation list; `number` grows, and so does its time: a broker that holds two takes the later one.

    It is dated back a little: a list from the future counts for nothing, and then nobody is let in.
    """
    certificate = x509.load_pem_x509_certificate(authority[0].encode())
    at = dt.datetime.fromtimestamp(number - BACK_S, dt.UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(certificate.subject)
        .last_update(at)
        .next_update(at + CRL_DAYS * _DAY)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(at).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(_load_key(authority[1]), hashes.SHA256()).public_bytes(PEM).decode()


def serials_of(crl_pem: bytes) -> set[str]:
    """Give the serials on revocation lists, one after another; none of one that cannot be read."""
    found: set[str] = set()
    for part in crl_pem.split(_END_OF_LIST)[:-1]:
        with suppress(ValueError):
            found |= {f"{each.serial_number:x}" for each in x509.load_pem_x509_crl(part + _END_OF_LIST)}
    return found


def make_request(name: str) -> tuple[str, bytes]:
    """Make a key and a request for it, as a device does."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return request.public_bytes(PEM).decode(), private


def _key_of(request_pem: str) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    try:
        request = x509.load_pem_x509_csr(request_pem.encode())
        key, holds_key = request.public_key(), request.is_signature_valid
    except (ValueError, TypeError):
        raise Unprocessable("not a certificate request in PEM", code="bad_certificate", fields=["csr"]) from None
    is_strong = isinstance(key, ec.EllipticCurvePublicKey) or (
        isinstance(key, rsa.RSAPublicKey) and key.key_size >= MIN_RSA_BITS
    )
    if not holds_key or not is_strong:
        detail = f"the request must be signed with its own key, an elliptic curve or RSA of {MIN_RSA_BITS} bits"
        raise Unprocessable(detail, code="bad_certificate", fields=["csr"])
    assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
    return key


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)  # we made it
    return key


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _now() -> dt.datetime:
    return dt.datetime.fromtimestamp(clock.now_ns() // clock.NS_PER_S, dt.UTC)


def _ns(moment: dt.datetime) -> int:
    return max(0, min(int(moment.timestamp()) * clock.NS_PER_S, clock.MAX_NS))
