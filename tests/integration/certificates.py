"""Certificates for a test, made by OpenSSL: an authority, and a gateway that it vouches for."""

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest


class Certificates(NamedTuple):
    """PEM files."""

    authority: Path
    certificate: Path
    key: Path

    def environment(self) -> dict[str, str]:
        """Return the variables that make a gateway speak TLS."""
        return {
            "SHOTLINE_TLS_CERTIFICATE_FILE": str(self.certificate),
            "SHOTLINE_TLS_KEY_FILE": str(self.key),
        }


def make_certificates(folder: Path, name: str = "IP:127.0.0.1") -> Certificates:
    """Write them into a new `folder`; the gateway's name is `name`."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not here")
    folder.mkdir()
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for made, more in (
        ("ca", ["-subj", "/CN=test authority"]),
        (
            "gateway",
            [
                *("-subj", "/CN=gateway", "-CA", "ca.pem", "-CAkey", "ca.key"),
                *("-addext", f"subjectAltName={name}", "-addext", "basicConstraints=CA:FALSE"),
            ],
        ),
    ):
        subprocess.run(
            [openssl, *new, "-keyout", f"{made}.key", "-out", f"{made}.pem", "-days", "2", *more],
            cwd=folder,
            check=True,
            capture_output=True,
        )
    return Certificates(folder / "ca.pem", folder / "gateway.pem", folder / "gateway.key")
