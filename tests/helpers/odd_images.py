"""Image files as people have them: formats x modes x depths x orientation x profiles x damage.

What Pillow cannot write is written here by the formats' specifications: PNG of every depth,
interlaced or with chunks of its own, TIFF of 12 and 16 bits, colour profiles.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image

FORMATS = (
    "AVIF", "BLP", "BMP", "DDS", "DIB", "GIF", "ICNS", "ICO", "IM", "JPEG", "JPEG2000", "MPO",
    "MSP", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP", "XBM",
)  # fmt: skip
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F")
ENDINGS = {"ICNS": ".icns", "IM": ".im", "TGA": ".tga"}
ADAM7 = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)
HEIGHT, WIDTH = 20, 32


def smooth(height=HEIGHT, width=WIDTH):
    """A picture without symmetry, (height, width, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 255 * x / (width - 1), 255 * y / (height - 1)
    return np.stack([red, green, np.hypot(red, green) / 1.5], -1).astype(np.uint8)


def in_mode(mode, pixels=None):
    """The smooth picture as a Pillow image of any mode."""
    image = Image.fromarray(smooth() if pixels is None else pixels)
    alpha = image.getchannel("G")
    if mode in ("LA", "RGBA"):
        (image := image.convert(mode)).putalpha(alpha)
    elif mode == "PA":
        image = image.quantize(16).convert("PA")
        image.putalpha(alpha)
    elif mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode in ("I", "F"):
        image = image.convert("L").convert(mode)
    elif mode == "LAB":
        image = Image.merge("LAB", image.split())
    else:
        image = image.quantize(64) if mode == "P" else image.convert(mode)
    return image


def written(image, kind, **options):
    """The bytes of a file of a Pillow image."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def with_orientation(image, orientation, kind):
    """The bytes of a file with an EXIF orientation."""
    exif = Image.Exif()
    exif[274] = orientation
    return written(image, kind, exif=exif.tobytes() if kind != "TIFF" else exif)


# PNG ---------------------------------------------------------------------------------------------


def png(values, colour, depth=8, interlaced=False, chunks=()):
    """The bytes of a PNG file (https://www.w3.org/TR/png-3/).

    Args:
        values: (height, width, channels) integers.
        colour: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha.
        depth: bits of a value.
        chunks: (name, content) to put before the pixels.
    """
    height, width = values.shape[:2]
    header = struct.pack(">2I5B", width, height, depth, colour, 0, 0, int(interlaced))
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    rows = [
        b"\0" + _packed(row.reshape(-1), depth)
        for y, x, down, right in passes
        for row in values[y::down, x::right]
        if row.size
    ]
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, parts))


def _chunk(part):
    name, content = part
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def _packed(row, depth):
    if depth == 16:
        return row.astype(">u2").tobytes()
    if depth == 8:
        return row.astype(np.uint8).tobytes()
    bits = (row[:, None] >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.astype(np.uint8).reshape(-1)).tobytes()


# TIFF --------------------------------------------------------------------------------------------


def tiff(values, bits, order="<", photometric=1, sample_format=1, **tags):
    """The bytes of a TIFF file without compression (TIFF 6.0).

    Args:
        values: (height, width) or (height, width, channels).
        bits: of a value; 12 are packed.
        order: "<" or ">", of the bytes.
        photometric: 0 white is zero, 1 black is zero, 2 RGB, 5 CMYK.
        sample_format: 1 unsigned, 2 signed, 3 float.
        tags: more of them, t254=1 for tag 254.
    """
    height, width = values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    if bits == 12:
        places = (values.reshape(height, -1)[..., None] >> np.arange(11, -1, -1)) & 1
        pixels = b"".join(np.packbits(row.reshape(-1).astype(np.uint8)).tobytes() for row in places)
    else:
        pixels = values.astype(f"{order}{' uif'[sample_format]}{bits // 8}").tobytes()
    all_tags = {
        256: width, 257: height, 258: [bits] * channels, 259: 1, 262: photometric,
        273: 8, 277: channels, 278: height, 279: len(pixels), 339: [sample_format] * channels,
    } | {int(name[1:]): value for name, value in tags.items()}  # fmt: skip
    start, extra, entries = 8 + len(pixels) + len(pixels) % 2, b"", []
    after = start + 2 + 12 * len(all_tags) + 4
    for tag, value in sorted(all_tags.items()):
        listed = value if isinstance(value, list) else [value]
        kind = 3 if isinstance(value, list) else 4
        content = struct.pack(f"{order}{len(listed)}{'HI'[kind - 3]}", *listed)
        if len(content) > 4:
            content, extra = struct.pack(f"{order}I", after + len(extra)), extra + content
        entries.append(struct.pack(f"{order}2HI", tag, kind, len(listed)) + content.ljust(4, b"\0"))
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", start)
    table = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)
    return head + pixels + bytes(len(pixels) % 2) + table + extra


# Colour profiles, by the specification of the Color Consortium ------------------------------------


def profile(space, gamma=1.8, primaries=None):
    """The bytes of a profile: "RGB ", "GRAY" or "CMYK".

    Args:
        gamma: of the values.
        primaries: of RGB, (3, 3) XYZ of red, green and blue; None for very saturated ones.
    """
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    white = (0.9642, 1.0, 0.8249)
    tags = {b"wtpt": _xyz(white), b"cprt": b"text" + bytes(4) + b"none\0", b"desc": _description()}
    if space == "RGB ":
        if primaries is None:
            primaries = (
                (0.60974, 0.31111, 0.01947),
                (0.20528, 0.62567, 0.06087),
                (0.14919, 0.06322, 0.74457),
            )
        for name, colour in zip((b"r", b"g", b"b"), primaries, strict=True):
            tags |= {name + b"XYZ": _xyz(colour), name + b"TRC": curve}
    elif space == "GRAY":
        tags[b"kTRC"] = curve
    else:
        tags[b"A2B0"] = _cmyk_table()
    offset, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">2I", offset + len(data), len(content))
        data += content
    kind, connection = (b"prtr", b"Lab ") if space == "CMYK" else (b"mntr", b"XYZ ")
    header = struct.pack(">I4sI4s4s4s", 0, b"", 0x02400000, kind, space.encode(), connection)
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + bytes(4)
    header = header.ljust(68, b"\0") + _xyz(white)[8:]
    body = header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data
    return struct.pack(">I", len(body)) + body[4:]


def _xyz(values):
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(65536 * value) for value in values))


def _description():
    return b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(8 + 3 + 67)


def _cmyk_table():
    """A lut8 of two grid points a channel: ink takes light away, cyan less than the others."""
    grid = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), -1).reshape(-1, 4)
    light = 255 - np.minimum(grid @ [40, 70, 30, 240], 255)
    a, b = 128 + grid @ [-30, 60, 0, 0], 128 + grid @ [-40, 0, 70, 0]
    colours = np.stack([light, a, b], -1).clip(0, 255).astype(np.uint8)
    identity = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * np.eye(3, dtype=int).reshape(-1)).tolist())
    return (
        b"mft1"
        + bytes(4)
        + bytes([4, 3, 2, 0])
        + matrix
        + identity * 4
        + colours.tobytes()
        + identity * 3
    )


# The corpus --------------------------------------------------------------------------------------


def corpus():
    """Yields (name of a file, its bytes, what is to be seen).

    The last is (height, width, 3) uint8; or None, where Pillow's own conversions say it; or a word
    of the message where the file is to be refused.
    """
    yield from _formats()
    yield from _turned()
    yield from _depths()
    yield from _transparent()
    yield from _profiles()
    yield from _several_frames()


def _formats():
    """Every format that Pillow writes, in every mode that it takes."""
    for kind in FORMATS:
        for mode in MODES:
            try:
                content = written(in_mode(mode), kind)
            except (OSError, ValueError, KeyError, SystemError):
                continue  # the format has no such mode
            wanted = "value_range" if mode in ("I", "F") and kind in ("IM", "TIFF") else None
            wanted = {("PPM", "F"): "value_range", ("ICNS", "P"): "damaged"}.get(
                (kind, mode), wanted
            )
            yield f"{kind}-{mode.replace(';', '')}{ENDINGS.get(kind, '.jpg')}", content, wanted


def _turned():
    """Every orientation, in every format that says one."""
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "MPO"):
        for orientation in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9):
            content = with_orientation(in_mode("RGB"), orientation, kind)
            yield f"turned-{kind}-{orientation}", content, None
    for mode in ("L", "CMYK"):
        yield f"turned-JPEG-mode-{mode}", with_orientation(in_mode(mode), 6, "JPEG"), None
    for mode in ("1", "P", "LA", "RGBA", "I;16"):
        yield f"turned-PNG-mode-{mode}", with_orientation(in_mode(mode), 6, "PNG"), None
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    yield "turned-XMP", written(in_mode("RGB"), "JPEG", xmp=xmp), None
    broken = with_orientation(in_mode("RGB"), 6, "JPEG").replace(b"Exif\0\0MM", b"Exif\0\0XX")
    yield "turned-broken", broken, None


def _grey(values, highest):
    return np.repeat(np.round(255 * (values / highest))[..., None], 3, -1).astype(np.uint8)


def _depths():
    """Every number of bits of PNG and TIFF, plain and interlaced, either byte order."""
    seen = smooth().astype(int)
    for interlaced in (False, True):
        name = "interlaced" if interlaced else "plain"
        for depth in (1, 2, 4, 8):
            values = seen[..., :1] >> (8 - depth)
            content = png(values, 0, depth, interlaced)
            yield f"png-{name}-grey-{depth}", content, _grey(values[..., 0], 2**depth - 1)
        for colour, channels in ((0, 1), (2, 3)):
            for depth in (8, 16):
                values = seen[..., :channels] * (257 if depth == 16 else 1)
                shown = np.broadcast_to(seen[..., :channels], seen.shape)
                yield f"png-{name}-{colour}-{depth}", png(values, colour, depth, interlaced), shown
        palette = np.random.default_rng(0).integers(0, 256, (16, 3), np.uint8)
        for depth in (1, 2, 4):
            values = seen[..., :1] >> (8 - depth)
            chunks = [(b"PLTE", palette[: 2**depth].tobytes())]
            shown = palette[values[..., 0]]
            yield f"png-{name}-palette-{depth}", png(values, 3, depth, interlaced, chunks), shown
    grey = seen[..., 0]
    for order in "<>":
        yield f"tiff-16-{order}", tiff(grey * 257, 16, order), np.stack([grey] * 3, -1)
        colour = tiff(seen * 257, 16, order, photometric=2)
        yield f"tiff-colour-16-{order}", colour, seen
        yield f"tiff-8-{order}", tiff(seen, 8, order, photometric=2), seen
        yield f"tiff-signed-16-{order}", tiff(grey * 100, 16, order, sample_format=2), "value_range"
        yield f"tiff-float-{order}", tiff(grey / 255, 32, order, sample_format=3), "value_range"
    yield "tiff-12", tiff(grey * 16, 12), _grey(grey * 16, 4095)
    yield "tiff-white-is-zero-8", tiff(grey, 8, photometric=0), np.stack([255 - grey] * 3, -1)
    yield (
        "tiff-white-is-zero-16",
        tiff(grey * 257, 16, photometric=0),
        np.stack([255 - grey] * 3, -1),
    )
    yield "tiff-32", tiff(grey, 32), "value_range"
    yield "tiff-not-finite", tiff(np.full((4, 4), np.nan), 32, sample_format=3), "value_range"
    yield "raw-preview", tiff(seen, 8, photometric=2, t254=1), "camera raw"
    for gamma in (0.3, 0.45455, 1.0):
        shown = seen if gamma == 0.45455 else np.round(255 * (seen / 255) ** (1 / (2.2 * gamma)))
        chunks = [(b"gAMA", struct.pack(">I", round(gamma * 100_000)))]
        yield f"png-gamma-{gamma}", png(seen, 2, 8, False, chunks), shown.astype(np.uint8)
        yield f"png-gamma-srgb-{gamma}", png(seen, 2, 8, False, [(b"sRGB", b"\0"), *chunks]), seen
    shown = np.round(255 * (grey / 255) ** (1 / 2.2))[..., None].repeat(3, -1).astype(np.uint8)
    yield "png-gamma-16", png(grey[..., None] * 257, 0, 16, False, chunks), shown


def _transparent():
    """Transparency by a channel, a palette or a colour; what is hidden is not what is seen."""
    seen = smooth().astype(int)
    for depth in (8, 16):
        scale = 257 if depth == 16 else 1
        for colour, channels in ((4, 1), (6, 3)):
            alpha = seen[..., 1:2]
            values = np.concatenate([seen[..., :channels], alpha], -1) * scale
            over = np.round((seen[..., :channels] * alpha + 255 * (255 - alpha)) / 255)
            shown = np.broadcast_to(over, seen.shape).astype(np.uint8)
            for interlaced in (False, True):
                yield (
                    f"alpha-{colour}-{depth}-{interlaced}",
                    png(values, colour, depth, interlaced),
                    shown,
                )
        key = seen[5, 7] * scale
        chunks = [(b"tRNS", np.asarray(key, ">u2").tobytes())]
        shown = np.where((seen * scale == key).all(-1)[..., None], 255, seen).astype(np.uint8)
        yield f"key-colour-{depth}", png(seen * scale, 2, depth, False, chunks), shown
    grey = seen[..., 1:2]
    for depth in (1, 2, 4, 8, 16):
        values = grey * 257 if depth == 16 else grey >> (8 - depth)
        key = values[12, 3, 0]
        shown = np.where(values == key, 255, _grey(values[..., 0], 2**depth - 1))
        chunks = [(b"tRNS", struct.pack(">H", key))]
        yield f"key-grey-{depth}", png(values, 0, depth, False, chunks), shown.astype(np.uint8)
    palette = np.random.default_rng(0).integers(0, 256, (4, 3), np.uint8)
    alphas = np.array([0, 85, 255], np.uint8)
    chunks = [(b"PLTE", palette.tobytes()), (b"tRNS", alphas.tobytes())]
    share = np.append(alphas, 255)[:, None] / 255
    over = np.round(palette * share + 255 * (1 - share)).astype(np.uint8)
    values = grey >> 6
    yield "palette-alphas", png(values, 3, 2, False, chunks), over[values[..., 0]]
    yield "gif-transparent", written(in_mode("P"), "GIF", transparency=3), None


def _profiles():
    """Profiles that change colours, that change nothing, that are broken or of another kind."""
    wide, grey, ink = profile("RGB "), profile("GRAY"), profile("CMYK")
    kinds = {"RGB": ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "MPO"), "L": ("JPEG", "PNG", "TIFF")}
    kinds |= {
        "RGBA": ("PNG", "WEBP", "TIFF"),
        "P": ("PNG",),
        "CMYK": ("JPEG", "TIFF"),
        "LA": ("PNG",),
    }
    for mode, formats in kinds.items():
        for kind in formats:
            for name, one in {"wide": wide, "grey": grey, "ink": ink, "broken": wide[:300]}.items():
                content = written(in_mode(mode), kind, icc_profile=one)
                yield f"profile-{name}-{kind}-{mode}", content, None
    exif = Image.Exif()
    exif[274] = 8
    both = written(in_mode("RGB"), "JPEG", icc_profile=wide, exif=exif.tobytes())
    yield "profile-and-turned", both, None


def _several_frames():
    """The first frame is what counts."""
    frames = [in_mode("RGB"), in_mode("RGB", 255 - smooth())]
    for kind in ("GIF", "PNG", "TIFF", "WEBP", "MPO", "AVIF"):
        content = written(frames[0], kind, save_all=True, append_images=frames[1:])
        yield f"frames-{kind}", content, None
