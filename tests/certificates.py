"""A certificate that signs itself, for servers that speak TLS."""

import shutil
import subprocess

from harness import is_missing


def self_signed(folder):
    """Make a key and a certificate for localhost and 127.0.0.1, and return their paths."""
    if not shutil.which("openssl"):
        is_missing("openssl")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    words += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run(words, check=True, capture_output=True)
    return key, certificate
