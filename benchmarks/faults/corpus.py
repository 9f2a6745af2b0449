"""Hostile files, made by a seed: images, archives and artifacts that are not what they claim.

Most are good files with bits, lengths or parts changed; the rest are bombs, each made by hand.
"""

import gzip
import io
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import PIL.Image

from benchmarks.faults.guarded import archive_of, photograph

Kind = Literal["image", "archive", "artifact"]

_LIES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 2**64 - 1)
_BLOCK = 512  # of a tar


class Hostile(NamedTuple):
    """A file.

    Attributes:
        name: what was done to what.
        kind: what it pretends to be.
        data: its bytes.
    """

    name: str
    kind: Kind
    data: bytes


def corpus(count: int, seed: int, artifacts: Sequence[bytes]) -> Iterator[Hostile]:
    """Yield all bombs, and mutated files until there are `count`.

    Args:
        count: of files.
        seed: the same seed, the same files.
        artifacts: good ones.
    """
    made = 0
    for hostile in (*image_bombs(), *archive_bombs(), *artifact_bombs(artifacts[0])):
        yield hostile
        made += 1
    chance = random.Random(seed)  # noqa: S311 - the same files each time
    samples = _samples(artifacts)
    names = list(samples)
    for number in range(made, count):
        name = names[number % len(names)]
        kind, data = samples[name]
        how = chance.choice(list(_MUTATIONS))
        other = samples[chance.choice(names)][1]
        yield Hostile(f"{how} {name}", kind, _MUTATIONS[how](chance, data, other))


def _samples(artifacts: Sequence[bytes]) -> dict[str, tuple[Kind, bytes]]:
    photographs = {
        "jpeg": _saved("JPEG"),
        "progressive": _saved("JPEG", progressive=True),
        "png": _saved("PNG"),
        "webp": _saved("WEBP"),
        "lossless": _saved("WEBP", lossless=True),
        "tiff": _saved("TIFF"),
        "tiff-lzw": _saved("TIFF", compression="tiff_lzw"),
        "tiff-jpeg": _saved("TIFF", compression="jpeg"),
        "bmp": _saved("BMP"),
        "gif": _saved("GIF"),
    }
    files = {f"part/{n}.png": photograph(1000 + n, 24) for n in range(4)}
    archives = {
        "zip": _zip(files, zipfile.ZIP_DEFLATED),
        "zip-stored": _zip(files, zipfile.ZIP_STORED),
        "tar": _tar([(_info(name, len(data)), data) for name, data in files.items()]),
    }
    archives["tar.gz"] = gzip.compress(archives["tar"], mtime=0)
    samples: dict[str, tuple[Kind, bytes]] = {}
    samples |= {name: ("image", data) for name, data in photographs.items()}
    samples |= {name: ("archive", data) for name, data in archives.items()}
    samples |= {f"artifact-{n}": ("artifact", data) for n, data in enumerate(artifacts)}
    return samples


def _saved(form: str, **options: object) -> bytes:
    pixels = np.random.default_rng(7).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    out = io.BytesIO()
    PIL.Image.fromarray(pixels).save(out, form, **options)
    return out.getvalue()


# --- Mutations: (chance, the file, another file) -> the file changed ---------------------------

Mutation = Callable[[random.Random, bytes, bytes], bytes]


def _flip(chance: random.Random, data: bytes, _: bytes) -> bytes:
    changed = bytearray(data)
    for _n in range(chance.choice((1, 1, 2, 5, 20, 100))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _flip_early(chance: random.Random, data: bytes, _: bytes) -> bytes:
    """Flip bits where headers are."""
    changed = bytearray(data)
    for _n in range(chance.choice((1, 2, 5))):
        changed[chance.randrange(min(200, len(changed)))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _cut(chance: random.Random, data: bytes, _: bytes) -> bytes:
    return data[: chance.randrange(len(data))]


def _lie(chance: random.Random, data: bytes, _: bytes) -> bytes:
    """Write another number where a length may be."""
    changed = bytearray(data)
    for _n in range(chance.choice((1, 1, 3))):
        size, order = chance.choice((2, 4, 8)), chance.choice(("<", ">"))
        number = chance.choice(_LIES) & (256**size - 1)
        at = chance.randrange(max(1, min(len(changed) - size, chance.choice((64, 512, 10**6)))))
        changed[at : at + size] = struct.pack(order + {2: "H", 4: "I", 8: "Q"}[size], number)
    return bytes(changed)


def _splice(chance: random.Random, data: bytes, other: bytes) -> bytes:
    at, start = chance.randrange(len(data)), chance.randrange(len(other))
    part = other[start : start + chance.randrange(1, 2000)]
    return data[:at] + part + data[at + chance.choice((0, len(part))) :]


def _repeat(chance: random.Random, data: bytes, _: bytes) -> bytes:
    start = chance.randrange(len(data))
    part = data[start : start + chance.randrange(1, 200)]
    return data[:start] + part * chance.choice((2, 10, 500)) + data[start:]


def _drop(chance: random.Random, data: bytes, _: bytes) -> bytes:
    start = chance.randrange(len(data))
    return data[:start] + data[start + chance.randrange(1, 100) :]


_MUTATIONS: Mapping[str, Mutation] = {
    "bits of": _flip,
    "header bits of": _flip_early,
    "cut": _cut,
    "lengths of": _lie,
    "spliced": _splice,
    "repeated parts of": _repeat,
    "missing parts of": _drop,
}


# --- Bombs --------------------------------------------------------------------------------------


def image_bombs() -> Iterator[Hostile]:
    """Yield images whose decoding would take minutes or gigabytes."""
    bombs: dict[str, bytes] = {
        "nothing": b"",
        "zeros": bytes(1000),
        "png of 900 megapixels": _png(30_000, 30_000, zlib.compress(bytes(10_000_000), 1)),
        "png of 2^31 pixels a side": _png(2**31 - 1, 2**31 - 1, b""),
        "png of one long row": _png(60_000, 1, zlib.compress(bytes(7501))),
        "png with too much data": _png(8, 8, zlib.compress(bytes(100_000_000), 1)),
        "png of tiny chunks": _png(8, 8, b"", _chunk(b"abCd") * 100_000),
        "png of texts": _png(
            8, 8, b"", _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(900_000), 9)) * 100
        ),
        "png with a profile that unpacks": _png(
            8, 8, b"", _chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(100_000_000), 1))
        ),
        "bmp of 65535 pixels a side": _bmp(65_535, 65_535, 0, b""),
        "bmp of negative size": _bmp(-1, -(2**31), 0, b""),
        "bmp in runs": _bmp(7000, 7000, 1, b"\0\2\xff\xff" * 300_000),
        "gif of frames": _saved("GIF")[:-1] + _FRAME * 100_000 + b";",
        "gif of comments": _saved("GIF")[:-1] + b"\x21\xfe\x00" * 300_000 + b";",
        "tiff of pages": _tiff_pages(20_000),
        "tiff of large tiles": _tiff(((322, 4, 1, 30_000), (323, 4, 1, 30_000))),
        "tiff of huge strips": _tiff(((278, 4, 1, 2**32 - 1), (279, 4, 1, 2**32 - 1))),
        "tiff of long tags": _tiff(tuple((40_000 + n, 7, 60_000, 0) for n in range(500))),
        "tiff of many samples": _tiff(((277, 3, 1, 65_535),)),
        "webp of frames": _webp_frames(20_000),
    }
    bombs |= _jpeg_bombs()
    for name, data in bombs.items():
        yield Hostile(name, "image", data)


def _jpeg_bombs() -> dict[str, bytes]:
    plain, out = _saved("JPEG"), io.BytesIO()
    PIL.Image.new("RGB", (7000, 7000)).save(out, "JPEG", progressive=True, quality=10)
    large = out.getvalue()
    scan = large[large.rindex(b"\xff\xda") : -2]
    start = plain.index(b"\xff\xc0") + 5
    exif = b"Exif\0\0" + _tiff(tuple((40_000 + n, 7, 60_000, 0) for n in range(4000)))
    return {
        "jpeg of 500 scans": large[:-2] + scan * 500 + b"\xff\xd9",
        "jpeg of 32 scans": large[:-2] + scan * (32 - large.count(b"\xff\xda")) + b"\xff\xd9",
        "jpeg of comments": plain[:2] + b"\xff\xfe\x00\x02" * 300_000 + plain[2:],
        "jpeg of fill": plain[:2] + b"\xff" * 1_000_000 + plain[2:],
        "jpeg of 65535 pixels a side": plain[:start] + b"\xff" * 4 + plain[start + 4 :],
        "jpeg with long exif": plain[:2]
        + b"\xff\xe1"
        + struct.pack(">H", len(exif) + 2)
        + exif
        + plain[2:],
    }


def _chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, pixels: bytes, more: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = _chunk(b"IHDR", header) + more + _chunk(b"IDAT", pixels) + _chunk(b"IEND")
    return b"\x89PNG\r\n\x1a\n" + parts


def _bmp(width: int, height: int, compression: int, data: bytes) -> bytes:
    start = 14 + 40 + 1024
    header = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, 8, compression, len(data), 0, 0, 256, 0
    )
    return (
        struct.pack("<2sIHHI", b"BM", start + len(data), 0, 0, start) + header + bytes(1024) + data
    )


_FRAME = b"\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0"


def _tags(*more: tuple[int, int, int, int]) -> bytes:
    tags = {256: (3, 1, 8), 257: (3, 1, 8), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1)}
    tags |= {273: (4, 1, 0), 278: (3, 1, 8), 279: (4, 1, 64)}
    tags |= {tag: (kind, count, value) for tag, kind, count, value in more}
    entries = [struct.pack("<HHII", tag, *entry) for tag, entry in sorted(tags.items())]
    return struct.pack("<H", len(entries)) + b"".join(entries)


def _tiff(more: tuple[tuple[int, int, int, int], ...]) -> bytes:
    return struct.pack("<2sHI", b"II", 42, 8) + _tags(*more) + bytes(4) + bytes(100)


def _tiff_pages(count: int) -> bytes:
    page = _tags()
    size = len(page) + 4
    pages = [page + struct.pack("<I", 8 + size * (n + 1)) for n in range(count)]
    return struct.pack("<2sHI", b"II", 42, 8) + b"".join(pages)[:-4] + bytes(4)


def _webp_frames(count: int) -> bytes:
    out = io.BytesIO()
    PIL.Image.new("RGB", (1, 1)).save(out, "WEBP", lossless=True)
    frame = bytes(16) + out.getvalue()[12:]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02" + bytes(9)
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body += (b"ANMF" + struct.pack("<I", len(frame)) + frame) * count
    return b"RIFF" + struct.pack("<I", len(body)) + body


def archive_bombs() -> Iterator[Hostile]:
    """Yield archives that would fill memory or disk, or write beside their folder."""
    for name, data in (*_zips(), *_tars()):
        yield Hostile(name, "archive", data)


def _zips() -> Iterator[tuple[str, bytes]]:
    image = photograph(2000, 16)
    zeros = bytes(150_000_000)
    bomb = _zip({f"a/{n}.png": zeros for n in range(2)}, zipfile.ZIP_DEFLATED)
    yield "zip that unpacks to 300 MB", bomb
    yield "zip in a zip", archive_of({"a/inner.zip": bomb, "a/1.png": image})
    yield "zip of many entries", archive_of({f"a/{n}.png": b"x" for n in range(10_500)})
    yield "zip of nothing", archive_of({})
    for path in ("../1.png", "/etc/1.png", "C:\\1.png", "a\\..\\..\\1.png", "a/../../1.png"):
        yield f"zip with the name {path}", _zip({path: image})
    yield "zip of long names", _zip({"a/" + "x" * 60_000 + f"{n}.png": image for n in range(20)})
    yield (
        "zip of odd names",
        _zip({"a/\x01\x1b[31m.png": image, "": image, "a/\u202egnp.png": image}),
    )
    yield "zip of one name twice", _zip_twice("a/1.png", image, photograph(2001, 16))
    yield "zip with a password", _encrypted(_zip({"a/1.png": image}))
    for method, code in (("bzip2", zipfile.ZIP_BZIP2), ("lzma", zipfile.ZIP_LZMA)):
        yield f"zip packed by {method}", _zip({"a/1.png": zeros[:10_000_000]}, code)
    overlapping = _zip({f"a/{n}.png": image for n in range(50)}, zipfile.ZIP_DEFLATED)
    yield "zip of overlapping entries", _overlapping(overlapping)


def _zip(files: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return out.getvalue()


def _zip_twice(name: str, *contents: bytes) -> bytes:
    one = _zip({name: contents[0], name + "x": contents[1]})
    return one.replace(f"{name}x".encode(), name.encode() + b"\0")


def _encrypted(data: bytes) -> bytes:
    changed = bytearray(data)
    for signature, flag in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        changed[data.index(signature) + flag] |= 1
    return bytes(changed)


def _overlapping(data: bytes) -> bytes:
    """Let each entry of the directory point at the first file."""
    changed, at = bytearray(data), data.find(b"PK\x01\x02")
    while at >= 0:
        changed[at + 42 : at + 46] = bytes(4)
        at = data.find(b"PK\x01\x02", at + 1)
    return bytes(changed)


def _tars() -> Iterator[tuple[str, bytes]]:
    image = photograph(2000, 16)
    good = (_info("a/1.png", len(image)), image)
    for kind, name in (
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "disk"),
        (tarfile.FIFOTYPE, "pipe"),
        (tarfile.GNUTYPE_SPARSE, "sparse file"),
        (tarfile.CONTTYPE, "contiguous file"),
        (b"Z", "file of no known type"),
    ):
        info = _info("a/2.png", 0)
        info.type, info.linkname = kind, "/etc/passwd"
        yield f"tar with a {name}", _tar([good, (info, b"")])
    for path in ("../1.png", "/etc/1.png", "a/../../1.png"):
        yield f"tar with the name {path}", _tar([(_info(path, len(image)), image)])
    yield "tar of one name twice", _tar([good, good])
    yield "tar of many entries", _tar([(_info(f"a/{n}.png", 0), b"") for n in range(10_500)])
    yield "tar of a terabyte", _tar([(_info("a/1.png", 2**40), b"")])
    yield "tar of a negative size", _patched(_tar([good]), 124, b"\xff" * 12)
    yield "tar of a long header", _long_header(200_000_000)
    yield "tar of a long name", _tar([(_info("a/" + "x" * 100_000 + ".png", len(image)), image)])
    yield "tar.gz that unpacks to 300 MB", gzip.compress(bytes(300_000_000), 1, mtime=0)
    yield "tar.gz in tar.gz", gzip.compress(gzip.compress(_tar([good]), mtime=0), mtime=0)
    yield "tar with sparse headers", _sparse(image)


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    return info


def _tar(entries: Sequence[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """Return a tar of these headers, each with the data that it is given, whatever it claims."""
    parts = []
    for info, data in entries:
        parts.append(info.tobuf(tarfile.PAX_FORMAT if info.type != b"Z" else tarfile.USTAR_FORMAT))
        parts.append(data + bytes(-len(data) % _BLOCK))
    return b"".join(parts) + bytes(2 * _BLOCK)


def _patched(data: bytes, at: int, value: bytes) -> bytes:
    """Return a tar with a field of its first header changed, its checksum made right."""
    header = bytearray(data[:_BLOCK])
    header[at : at + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[_BLOCK:]


def _long_header(claimed: int) -> bytes:
    info = _info("././@LongLink", claimed)
    info.type = tarfile.GNUTYPE_LONGNAME
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(10 * _BLOCK)


def _sparse(image: bytes) -> bytes:
    info = _info("a/1.png", len(image))
    info.pax_headers = {"GNU.sparse.size": str(2**50), "GNU.sparse.map": "0,10," * 10_000 + "0,1"}
    return _tar([(info, image)])


def artifact_bombs(good: bytes) -> Iterator[Hostile]:
    """Yield safetensors whose header lies."""
    length = int.from_bytes(good[:8], "little")
    for number in _LIES:
        yield Hostile(
            f"artifact of {number} bytes of header",
            "artifact",
            number.to_bytes(8, "little") + good[8:],
        )
    for name, header in {
        "nested": b'{"__metadata__":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "nested objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        "with no tensors": b'{"__metadata__":{"format_version":"1"}}',
        "that is a list": b"[]",
        "of a number with many digits": b'{"__metadata__":' + b"9" * 100_000 + b"}",
        "of another version": b'{"__metadata__":{"format_version":"99"}}',
    }.items():
        yield Hostile(
            f"artifact header {name}", "artifact", len(header).to_bytes(8, "little") + header
        )
    yield Hostile("artifact without tensors", "artifact", good[: 8 + length])
