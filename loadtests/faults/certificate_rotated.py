"""Another certificate in place of the one that is served."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from loadtests.faults.callers import calling
from loadtests.faults.fault import Fault, Finding
from loadtests.faults.replica import replica


def missing() -> str:
    return "" if shutil.which("openssl") else "openssl is not installed"


async def provoke(seconds: float) -> Finding:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        old, new = certificate(folder, "old"), certificate(folder, "new")
        certificate_file, key_file = folder / "tls.crt", folder / "tls.key"
        put(old, certificate_file, key_file)
        settings = ["--tls-certificate", str(certificate_file), "--tls-key", str(key_file)]
        async with replica(*settings) as service:
            both = old[0].read_bytes() + new[0].read_bytes()
            async with calling(service.target.http, service.target.grpc, authorities=both) as callers:
                await callers.steady(seconds)
                put(new, certificate_file, key_file)
                start = time.perf_counter()
                expected = new[0].read_text().strip()
                addresses = [urlsplit(service.target.http), urlsplit(f"//{service.target.grpc}")]
                await callers.until(
                    lambda: all(
                        ssl.get_server_certificate((each.hostname or "", each.port or 0)).strip() == expected
                        for each in addresses
                    )
                )
                rotated_s = time.perf_counter() - start
                await callers.steady(seconds)
                await callers.stop()
            assert await asyncio.to_thread(service.ready)
    return Finding(
        "certificate and key replaced while each request opens a connection of its own",
        f"new connections had the new one after {rotated_s:.1f} s, over HTTP and gRPC; {callers.unreached} connections "
        f"failed, {callers.refused} requests were refused",
        callers.tallies,
    )


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    files = folder / f"{name}.crt", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "1", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-out", str(files[0]), "-keyout", str(files[1])], check=True, capture_output=True)
    return files


def put(pair: tuple[Path, Path], certificate_file: Path, key_file: Path) -> None:
    """Copies, each renamed into its place."""
    for source, place in zip(pair, (certificate_file, key_file), strict=True):
        beside = place.with_suffix(".new")
        shutil.copy(source, beside)
        beside.rename(place)


FAULT = Fault("certificate-rotated", "Certificate rotated", provoke, missing)
