"""What goes over the wire: two frames a message, a JSON header and the arrays as safetensors.

Header: `corft_policy` the protocol's version, `kind` and the kind's fields. Kinds: robot → server `hello`, `chunk`;
server → robot `info`, `chunk`, `error`. Robot's messages carry `session`, one a client, and `number`, counting up;
answers repeat both. Nothing in a message can run code, and every field is checked before it is used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from io import BytesIO
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from corft_core.contract import Contract
from corft_core.data.history import Spacing
from corft_core.errors import CorftError
from corft_core.prediction import ChunkPrediction
from corft_core.serving.interface import PolicyInfo, Request, Seen

PROTOCOL = 1
MAX_MESSAGE_BYTES = 64 * 2**20
JPEG_QUALITY = 90
ImageFormat = Literal["raw", "jpeg"]
IMAGE_FORMATS: tuple[ImageFormat, ...] = ("raw", "jpeg")

_MAX_HEADER_BYTES, _MAX_TEXT, _MAX_SEEN, _MAX_PIXELS = 2**20, 10_000, 256, 2**25
_ARRAY_TYPES = ("uint8", "int64", "float32", "float64")


class ProtocolError(CorftError):
    """A message that is none, or of another version; `version` is the sender's when it is known."""

    def __init__(self, message: str, version: int | None = None) -> None:
        super().__init__(message)
        self.version = version


@dataclass(frozen=True)
class Message:
    """One message. `session` and `number` say which question it is or answers."""

    kind: str
    session: str
    number: int
    header: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def get(self, key: str, kind: type) -> Any:
        """A field of the header. Raises ProtocolError when it is missing or no `kind`."""
        value = self.header.get(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ProtocolError(f"field {key!r} of a {self.kind!r} message must be {kind.__name__}, got {value!r:.80}")
        return value


def pack(message: Message) -> list[bytes]:
    """The frames of a message."""
    header = {"corft_policy": PROTOCOL, "kind": message.kind, "session": message.session, "number": message.number,
              **message.header}
    arrays = {name: np.asarray(value, order="C") for name, value in message.arrays.items()}
    return [json.dumps(header, allow_nan=False).encode(), save(arrays)]


def unpack(frames: Sequence[bytes]) -> Message:
    """Inverse of :func:`pack`. Raises ProtocolError for whatever else comes."""
    if len(frames) != 2:
        raise ProtocolError(f"a message has two frames, got {len(frames)}")
    header = _header(frames[0])
    version = header.pop("corft_policy", None)
    if version != PROTOCOL:
        version = version if isinstance(version, int) else None
        raise ProtocolError(f"a message of protocol {version}, this corft speaks {PROTOCOL}: install the same corft "
                            "on the robot and on the policy server", version)
    kind, session, number = (header.pop(key, None) for key in ("kind", "session", "number"))
    if not isinstance(kind, str) or not isinstance(session, str) or len(session) > 64 or not _natural(number):
        raise ProtocolError("a message needs a kind, a session and a number")
    try:
        arrays = load(frames[1])
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise ProtocolError(f"a message's arrays can't be read: {error!r:.200}") from error
    wrong = sorted(str(array.dtype) for array in arrays.values() if array.dtype.name not in _ARRAY_TYPES)
    if wrong:
        raise ProtocolError(f"a message's arrays must be {', '.join(_ARRAY_TYPES)}, got {wrong[0]}")
    return Message(kind, session, number, header, arrays)


def _header(frame: bytes) -> dict[str, Any]:
    if len(frame) > _MAX_HEADER_BYTES:
        raise ProtocolError(f"a message's header has {len(frame)} bytes, at most {_MAX_HEADER_BYTES} are read")
    try:
        header = json.loads(frame)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a message's header is no JSON: {error!r:.200}") from error
    if not isinstance(header, dict):
        raise ProtocolError("a message's header must be a JSON object")
    return header


def _natural(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


# Questions and answers

def pack_request(request: Request, images: ImageFormat) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Header and arrays of a `chunk` question. Arrays of what is seen now begin with `0.`, of the past with `1.` …"""
    header = {"instruction": request.instruction, "seed": request.seed, "frozen": request.frozen, "run": request.run,
              "begins": request.begins, "images": images}
    header["stamps_ns"] = [seen.stamp_ns for seen in (request.now, *request.past)]
    arrays: dict[str, NDArray[Any]] = {} if request.plan is None else {"plan": request.plan}
    for place, seen in enumerate((request.now, *request.past)):
        arrays[f"{place}.state"] = seen.state
        for name, pixels in seen.images.items():
            arrays[f"{place}.image.{name}"] = pixels if images == "raw" else _jpeg(pixels)
    return header, arrays


def unpack_request(message: Message) -> Request:
    """Inverse of :func:`pack_request`; whether shapes fit the policy is for the policy to say."""
    instruction, run, images = (message.get(key, str) for key in ("instruction", "run", "images"))
    seed, frozen, stamps_ns = message.get("seed", int), message.get("frozen", int), message.get("stamps_ns", list)
    if (max(len(instruction), len(run)) > _MAX_TEXT or images not in IMAGE_FORMATS
            or not 1 <= len(stamps_ns) <= _MAX_SEEN or not all(map(_natural, (seed, frozen, *stamps_ns)))):
        raise ProtocolError(f"a request needs an instruction of at most {_MAX_TEXT} characters, images of "
                            f"{' or '.join(IMAGE_FORMATS)}, 1 to {_MAX_SEEN} stamps, and numbers that are not negative")
    now, *past = (_seen(message, place, stamp_ns, images == "raw") for place, stamp_ns in enumerate(stamps_ns))
    return Request(now, instruction, seed, _floats(message, "plan", 2) if "plan" in message.arrays else None, frozen,
                   run, message.get("begins", bool), tuple(past))


def _seen(message: Message, place: int, stamp_ns: int, raw: bool) -> Seen:
    images = {}
    for name, array in message.arrays.items():
        if name.startswith(f"{place}.image."):
            if array.dtype != np.uint8 or array.ndim != (3 if raw else 1):
                raise ProtocolError(f"{name} must be uint8 pixels (raw) or the bytes of a JPEG, got {array.shape}")
            images[name.removeprefix(f"{place}.image.")] = array if raw else _pixels(name, array)
    return Seen(stamp_ns, images, _floats(message, f"{place}.state", 1))


def _floats(message: Message, name: str, dimensions: int) -> NDArray[np.float64]:
    array = message.arrays.get(name)
    if array is None or array.dtype != np.float64 or array.ndim != dimensions or not np.isfinite(array).all():
        raise ProtocolError(f"a request's {name} must be finite float64 in {dimensions} dimension(s)")
    return array


def _jpeg(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from PIL import Image

    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=JPEG_QUALITY)
    return np.frombuffer(file.getvalue(), np.uint8)


def _pixels(name: str, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(BytesIO(data.tobytes()), formats=("JPEG",)) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise ProtocolError(f"{name} has {image.width} x {image.height} pixels, at most {_MAX_PIXELS} are read")
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ProtocolError(f"{name} is no JPEG: {error!r:.200}") from error


def pack_prediction(prediction: ChunkPrediction) -> dict[str, NDArray[Any]]:
    """Arrays of a `chunk` answer: every field that is set, numbers as arrays without dimension."""
    values = {item.name: getattr(prediction, item.name) for item in fields(prediction)}
    return {name: np.asarray(value) for name, value in values.items() if value is not None}


def unpack_prediction(message: Message) -> ChunkPrediction:
    """Inverse of :func:`pack_prediction`. Raises ProtocolError for other fields or shapes."""
    unknown = set(message.arrays) - {item.name for item in fields(ChunkPrediction)}
    actions, value = (message.arrays.get(name) for name in ("actions", "value"))
    if unknown or actions is None or actions.ndim != 3 or len(actions) != 1 or value is None or value.shape != (1,):
        raise ProtocolError("a chunk must be actions (1, H, A) and a value (1,); the server runs another corft")
    values: dict[str, Any] = {name: array if array.ndim else array.item() for name, array in message.arrays.items()}
    return ChunkPrediction(**values)


def pack_info(info: PolicyInfo) -> dict[str, Any]:
    """Header of an `info` answer."""
    return {"policy_id": info.policy_id, "checkpoint": info.checkpoint, "contract": info.contract.to_dict(),
            "action_names": list(info.contract.action_names), "rate_hz": info.rate_hz, "horizon": info.horizon,
            "inpaints": info.inpaints, "instructions": list(info.instructions), "spacing": asdict(info.spacing)}


def unpack_info(message: Message) -> PolicyInfo:
    """Inverse of :func:`pack_info`. Raises CorftError when the contract is not understood here as it is there."""
    contract = Contract.from_dict(message.get("contract", dict))
    for key, here in (("action_names", list(contract.action_names)), ("rate_hz", contract.rate_hz)):
        if message.header.get(key) != here:
            raise ProtocolError(f"the server reads its contract as {key} {message.header.get(key)}, this corft as "
                                f"{here}: install the same corft on both machines")
    horizon = message.get("horizon", int)
    if not 0 < horizon <= 10_000:
        raise ProtocolError(f"the server's chunks have {horizon} steps")
    steps, stride_ns = (message.get("spacing", dict).get(key) for key in ("steps", "stride"))
    if not (_natural(steps) and _natural(stride_ns) and 0 < steps <= _MAX_SEEN and stride_ns > 0):
        raise ProtocolError(f"the server's policy looks back at {steps} observations, {stride_ns} ns apart")
    return PolicyInfo(
        policy_id=message.get("policy_id", str), checkpoint=message.get("checkpoint", str), contract=contract,
        horizon=horizon, inpaints=message.get("inpaints", bool),
        instructions=tuple(str(text) for text in message.get("instructions", list)),
        spacing=Spacing(steps, stride_ns))


def finite(seconds: Any) -> float:
    """A duration out of a header; NaN when it is none."""
    return float(seconds) if isinstance(seconds, (int, float)) and math.isfinite(seconds) else math.nan
