"""Says in words what a file is, from its first bytes; for messages about what is no image."""

import codecs
import re

HEAD = 4096  # bytes that are looked at

KINDS = [
    (rb"\xff\xd8\xff", "JPEG image"),
    (rb"\x89PNG\r\n\x1a\n", "PNG image"),
    (rb"GIF8[79]a", "GIF image"),
    (rb"RIFF.{4}WEBP", "WebP image"),
    (rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", "BMP image"),
    (rb"(II\*\0|II\+\0).{4}CR", "camera raw file"),
    (rb"FUJIFILMCCD-RAW|FOVb|IIRO|IIU\0|.{4}ftypcrx", "camera raw file"),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "TIFF image"),
    (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "JPEG 2000 image"),
    (rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL image"),
    (rb".{4}ftyp(avif|avis)", "AVIF image"),
    (rb".{4}ftyp(hei[cxms]|hev[cx]|mif1|msf1)", "HEIC image"),
    (rb"8BPS", "Photoshop image"),
    (rb"gimp xcf", "GIMP image"),
    (rb".{4}(ftyp|moov|mdat|wide)|\x1a\x45\xdf\xa3|RIFF.{4}AVI |FLV\x01", "video"),
    (rb"\0\0\x01[\xb3\xba]", "video"),
    (rb"RIFF.{4}WAVE|ID3|OggS|fLaC|MThd|\xff[\xfb\xf3\xf2]", "audio file"),
    (rb"\0\x05\x16[\0\x07]", "AppleDouble file, which macOS writes beside others"),
    (rb"version https://git-lfs", "Git LFS pointer; `git lfs pull` brings it"),
    (rb"(\.\./)*\.git/annex/|/annex/objects/", "git-annex pointer; `git annex get` brings it"),
    (rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF", "WMF or EMF drawing"),
    (rb"%PDF-", "PDF document"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript document"),
    (rb"PK(\x03\x04|\x05\x06|\x07\x08)", "ZIP archive"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ\0|7z\xbc\xaf\x27\x1c|Rar!|\x28\xb5\x2f\xfd", "compressed file"),
    (rb".{257}ustar", "tar archive"),
    (rb".{128}DICM", "DICOM file"),
    (rb"\x93NUMPY", "NumPy array"),
    (rb"\x89HDF\r\n\x1a\n", "HDF5 file"),
    (rb"SQLite format 3", "SQLite database"),
    (rb"MZ|\x7fELF|\xcf\xfa\xed\xfe", "program"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Office document or Thumbs.db"),
]  # fmt: skip
PATTERNS = [(re.compile(pattern, re.DOTALL), kind) for pattern, kind in KINDS]
TEXTS = [
    (r"<svg|<\?xml.*<svg", "SVG drawing"),
    (r"<!doctype html|<html|<head|<body", "HTML page"),
    (r"<\?xml|<[a-z]+[ >]", "XML file"),
    (r"[\[{]\s*([\"\[{}\]0-9-]|true|false|null)", "JSON file"),
]
TEXT_PATTERNS = [(re.compile(pattern, re.DOTALL | re.IGNORECASE), kind) for pattern, kind in TEXTS]


def describe(head: bytes) -> str:
    """Returns what a file is, from its first HEAD bytes: "HTML page", "PNG image", "empty file"."""
    if not head:
        return "empty file"
    if not head.strip(b"\0"):
        return "file of zeros"
    for pattern, kind in PATTERNS:
        if pattern.match(head):
            return kind
    text = _text(head)
    if text is None:
        return "file of an unknown kind"
    text = re.sub(r"^(\s|<!--.*?-->)*", "", text, flags=re.DOTALL)
    return next((kind for pattern, kind in TEXT_PATTERNS if pattern.match(text)), "text file")


def _text(head):
    """The text that the bytes are the beginning of, or None."""
    for mark, encoding in ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if head.startswith(mark):
            return head.decode(encoding, "replace")
    printable = sum(byte >= 32 or byte in b"\t\n\r\f" for byte in head)
    if b"\0" in head or printable < 0.95 * len(head):
        return None
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:  # Latin-1 and the like: letters are most of a text
        return head.decode("latin-1") if sum(byte < 128 for byte in head) > len(head) / 2 else None
