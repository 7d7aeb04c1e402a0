"""CurveZMQ: who does not have the server's public key file learns nothing and gets no answer.

The server keeps NAME.key_secret; NAME.key is copied to the robots and works as a password: keep it off public places.
A robot's own key pair is made anew for each connection.
"""

from __future__ import annotations

from pathlib import Path

import zmq
from zmq.auth import create_certificates, load_certificate

from corft_core.errors import CorftError


def make_keys(path: Path) -> tuple[Path, Path]:
    """Write PATH.key and PATH.key_secret and return them. CorftError when one exists."""
    for suffix in (".key", ".key_secret"):
        if path.with_name(path.name + suffix).exists():
            raise CorftError(f"{path}{suffix} exists; robots may use it. Choose another name or remove it yourself.")
    path.parent.mkdir(parents=True, exist_ok=True)
    public, secret = (Path(name) for name in create_certificates(path.parent, path.name))
    secret.chmod(0o600)
    return public, secret


def secure_server(socket: zmq.Socket[bytes], secret_key: Path) -> None:
    """Take only encrypted connections; before bind."""
    public, secret = _load(secret_key)
    if secret is None:
        raise CorftError(f"{secret_key} holds no secret key: give the file that ends in .key_secret")
    socket.curve_publickey, socket.curve_secretkey, socket.curve_server = public, secret, True


def secure_client(socket: zmq.Socket[bytes], server_key: Path) -> None:
    """Connect encrypted to the server of this key; before connect."""
    public, _ = _load(server_key)
    socket.curve_serverkey = public
    socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()


def _load(path: Path) -> tuple[bytes, bytes | None]:
    if not zmq.has("curve"):
        raise CorftError("this pyzmq was built without encryption (libsodium): install the wheel, `pip install pyzmq`")
    try:
        return load_certificate(path.expanduser())
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise CorftError(f"{path} is no key file ({error}): make one with `policy_server --make-key NAME`") from error
