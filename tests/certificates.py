"""Certificates for servers that speak TLS: one that signs itself, or one of the site's own CA."""

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


def own_ca(folder, address):
    """Write a CA's certificate, `ca.pem`, and for an address `redis.pem` and its key `redis.key`."""

    def openssl(words):
        program = shutil.which("openssl") or is_missing("openssl")
        subprocess.run([program, *words.split()], check=True, capture_output=True, cwd=folder)

    openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ours -keyout ca.key -out ca.pem")
    openssl("req -newkey rsa:2048 -nodes -subj /CN=redis -keyout redis.key -out redis.csr")
    (folder / "names").write_text(f"subjectAltName=IP:{address}")
    openssl(
        "x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -CAcreateserial"
        " -days 2 -extfile names -out redis.pem"
    )
