"""Texts as files: unpacked and verified, cleaned, read, and cut without overlap."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import re
import zipfile
from pathlib import Path

import pytest
from dumps import clean
from hypothesis import given
from hypothesis import strategies as st

from lmshape.errors import InputError
from lmshape.texts.corpus import clean_file, read_span, read_text, span
from lmshape.texts.fetch import fetch

DATA = Path(__file__).parents[2] / "data"
TEXT = "Naïve café.\nZwei Zeilen.\n".encode() * 1000
MD5 = hashlib.md5(TEXT).hexdigest()


def packed(folder: Path, form: str) -> Path:
    """Write TEXT in a form that its name does not tell."""
    path = folder / "source"
    if form == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("folder/", b"")
            archive.writestr("folder/text", TEXT)
    else:
        path.write_bytes({"plain": bytes, "gz": gzip.compress, "xz": lzma.compress}[form](TEXT))
    return path


@pytest.mark.parametrize("form", ["plain", "gz", "xz", "zip"])
def test_a_local_text_is_unpacked_and_verified(tmp_path: Path, form: str) -> None:
    source = packed(tmp_path, form)
    fetch(
        source, tmp_path / "texts" / "a.txt", md5=MD5, sha256=hashlib.sha256(TEXT).hexdigest(), size=len(TEXT)
    )
    assert (tmp_path / "texts" / "a.txt").read_bytes() == TEXT
    assert source.exists()


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"md5": "0" * 32}, f"`md5` {MD5} instead of {'0' * 32}"),
        ({"sha256": "f" * 64}, "`sha256` .* instead of fff"),
        ({"size": 5}, f"`bytes` {len(TEXT)} instead of 5"),
    ],
)
def test_another_text_than_expected_is_refused(
    tmp_path: Path, expected: dict[str, str | int], message: str
) -> None:
    source = packed(tmp_path, "xz")
    with pytest.raises(InputError, match=message):
        fetch(source, tmp_path / "a.txt", **expected)
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("form", ["gz", "xz", "zip"])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_archive_is_refused(tmp_path: Path, form: str, damage: str) -> None:
    source = packed(tmp_path, form)
    content = bytearray(source.read_bytes())
    content[len(content) // 2] ^= 0xFF
    source.write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    with pytest.raises(InputError, match="is a damaged archive .*fetch it again"):
        fetch(source, tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == [source]


def test_a_zip_of_several_files_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("one", b"1")
        archive.writestr("two", b"2")
    with pytest.raises(InputError, match="holds 2 files; a zipped text must be alone"):
        fetch(tmp_path / "a.zip", tmp_path / "a.txt")


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"`source` is .*nowhere.txt, which is not a file; give a path or an http"
    ):
        fetch(tmp_path / "nowhere.txt", tmp_path / "a.txt")


def test_the_excerpt_is_what_its_readme_says(tmp_path: Path) -> None:
    table = re.findall(r"\| ([\d,]+) \| `(\w{32})` \| `(\w{64})` \|", (DATA / "README.md").read_text())
    (packed_size, packed_md5, _), (size, md5, sha256), (clean_size, clean_md5, clean_sha256) = table
    archive = (DATA / "enwik8-excerpt.xz").read_bytes()
    assert len(archive) == int(packed_size.replace(",", "")) < 3_000_000
    assert hashlib.md5(archive).hexdigest() == packed_md5
    fetch(
        DATA / "enwik8-excerpt.xz",
        tmp_path / "a.txt",
        md5=md5,
        sha256=sha256,
        size=int(size.replace(",", "")),
    )
    clean_file(tmp_path / "a.txt", tmp_path / "a.clean.txt")
    cleaned = (tmp_path / "a.clean.txt").read_bytes()
    assert len(cleaned) == int(clean_size.replace(",", ""))
    assert hashlib.md5(cleaned).hexdigest() == clean_md5
    assert hashlib.sha256(cleaned).hexdigest() == clean_sha256


def test_a_file_is_cleaned_as_its_text_is(tmp_path: Path) -> None:
    with lzma.open(DATA / "enwik8-excerpt.xz") as excerpt:
        raw = excerpt.read(300_001)
    (tmp_path / "raw").write_bytes(raw + "é".encode()[:1])
    clean_file(tmp_path / "raw", tmp_path / "clean")
    assert read_text(tmp_path / "clean") == clean(raw.decode())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clean", "raw"]


def test_cleaning_a_plain_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(TEXT)
    with pytest.raises(InputError, match="holds no Wikipedia article .* set `clean: false`"):
        clean_file(tmp_path / "raw", tmp_path / "clean")
    assert not (tmp_path / "clean").exists()


@pytest.mark.parametrize("ending", [b"", "é".encode()[:1], "🐈".encode()[:3]])
def test_half_a_character_at_the_end_is_left_out(tmp_path: Path, ending: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(TEXT + b"\r\n\x0bend" + ending)
    assert read_text(tmp_path / "a.txt") == TEXT.decode() + "\r\n\x0bend"


def test_a_text_file_knows_its_documents(tmp_path: Path) -> None:
    one, two, three = "a" * 40 + "\n", "é" * 30 + "\n", "c" * 30 + "\n"
    (tmp_path / "a.txt").write_text(f"{one}\x1e{two}\x1e{three}\x1e", encoding="utf-8")
    whole = one + two + three
    assert read_text(tmp_path / "a.txt") == whole
    assert read_span(tmp_path / "a.txt", 0, 1) == (whole, [41, 72])
    assert read_span(tmp_path / "a.txt", 0.6, 1) == (three, [])
    assert read_span(tmp_path / "a.txt", 0.2, 1) == (two + three, [31])
    (tmp_path / "b.txt").write_text(whole, encoding="utf-8")
    assert read_span(tmp_path / "b.txt", 0.2, 1) == (span(whole, 0.2, 1), None)


@pytest.mark.parametrize("bytes_", [b"caf\xe9 au lait", b"caf\xe9\nau lait\n", b"caf\xc3\n"])
def test_a_text_that_is_not_utf8_is_refused(tmp_path: Path, bytes_: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(bytes_)
    with pytest.raises(InputError, match="a.txt` is not UTF-8 .*0x(e9|c3).* `iconv -t utf-8`"):
        read_text(tmp_path / "a.txt")


@given(st.text(alphabet="ab\n", max_size=200), st.floats(0.01, 0.99))
def test_two_spans_share_nothing_and_are_the_text(text: str, fraction: float) -> None:
    first, second = span(text, 0, fraction), span(text, fraction, 1)
    assert first + second == text == span(text, 0, 1)
    assert not second or "\n" not in text or first == "" or first.endswith("\n") or "\n" not in second


def test_a_span_starts_with_a_line_near_its_fraction() -> None:
    text = "".join(f"line {number}\n" for number in range(1000))
    held_out = span(text, 0.9, 1)
    assert held_out.startswith("line 9") and abs(len(held_out) / len(text) - 0.1) < 0.001
    assert len(span("a" * 50_000, 0.9, 1)) == 5_000, "without line ends the cut is between two characters"
