"""Compressed files: all of their streams are read, and every damage is named; nothing is lost silently."""

import bz2
import gzip
import lzma
import struct

import pytest

from robustbert.data.errors import DataError
from robustbert.data.text.byte_streams import DAMAGE, InputFile
from robustbert.data.text.readers import find_source, read_pieces, read_records
from robustbert.data.text.records import BadInput, Record
from tests.data.conftest import make_text
from tests.data.corpus_files import write_parquet

zstd = pytest.importorskip("backports.zstd")  # from Python 3.14 on the product takes compression.zstd, the same code

TEXT = make_text(60).encode()
CHECKED = {zstd.CompressionParameter.checksum_flag: 1}  # as the program zstd writes
COMPRESS = {
    ".gz": lambda content: gzip.compress(content, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: zstd.compress(content, options=CHECKED),
}
KINDS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
every_ending = pytest.mark.parametrize("ending", COMPRESS)


def read(path):
    with InputFile(path) as file:
        content, damage = b"", ""
        try:
            while more := file.read(1000):
                content += more
        except DAMAGE as error:
            damage = file.damage(error)
        return content, damage


def write(folder, ending, content):
    path = folder / f"text{ending}"
    path.write_bytes(content)
    return path


@every_ending
def test_every_stream_of_a_file_is_read(tmp_path, ending):
    compress = COMPRESS[ending]
    streams = compress(TEXT[:5000]) + compress(b"") + compress(TEXT[5000:])
    assert read(write(tmp_path, ending, streams)) == (TEXT, "")
    assert read(write(tmp_path, ending, streams + bytes(512))) == (TEXT, "")  # padded, as gzip(1) and the xz format allow
    assert read(write(tmp_path, ".txt", streams)) == (TEXT, "")  # by content


@every_ending
@pytest.mark.parametrize(
    ("damage", "whole"),
    [
        (lambda streams: streams[0] + streams[1][:-1], True),
        (lambda streams: streams[0] + streams[1][: len(streams[1]) // 2], True),
        (lambda streams: streams[0] + b"garbage, long enough", True),
        (lambda streams: streams[0] + b"?" + streams[1][1:], True),
        (lambda streams: streams[0] + bytes(1 << 17), True),
        (lambda streams: flipped(streams[0]) + streams[1], False),
        (lambda streams: streams[0][:12], False),
    ],
    ids="cut-at-the-end cut-in-the-middle garbage-after second-header-damaged zeros-after bit-flipped header-only".split(),
)
def test_damage_is_named_with_the_file_and_the_place(tmp_path, ending, damage, whole):
    """Python's BZ2File and LZMAFile end without an error where the header of a later stream is damaged, and drop what follows
    (CPython 3.11.7, 3.13.0 and 3.14, DecompressReader: `Trailing data isn't a valid compressed stream; ignore it`); a dump of
    Wikipedia has thousands of streams. The same holds for zeros, as a download in parts leaves them.
    """
    streams = COMPRESS[ending](TEXT), COMPRESS[ending](TEXT)
    path = write(tmp_path, ending, damage(streams))
    content, message = read(path)
    assert message.startswith(f"{path}: damaged or cut-off {KINDS[ending]} near byte ") and "\n" not in message
    assert content.startswith(TEXT[:1000]) if whole else len(content) < len(TEXT)


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :]


def test_bzip2_of_python_drops_what_follows_a_damaged_header(tmp_path):
    # Why the product has a reader of its own: if this fails, Python's can be used again.
    damaged = bz2.compress(TEXT) + b"?" + bz2.compress(TEXT)[1:]
    assert bz2.decompress(damaged) == TEXT and read(write(tmp_path, ".bz2", damaged))[1] != ""


@every_ending
def test_damaged_files_are_bad_input_of_every_reader(tmp_path, ending):
    lines = "".join(f'{{"text": "Report {i} of many."}}\n' for i in range(20_000)).encode()
    (tmp_path / f"a.jsonl{ending}").write_bytes(COMPRESS[ending](lines)[:-4])
    (tmp_path / "b.jsonl").write_text('{"text": "Good."}\n')
    items = [item for _, item in read_records([find_source(str(tmp_path / "*"))], [1000])]
    bad = [item for item in items if type(item) is BadInput]
    assert len(bad) == 1 and f"a.jsonl{ending}: damaged or cut-off" in bad[0].message
    assert type(items[-1]) is Record and "Good." in items[-1].content
    with pytest.raises(DataError, match="damaged or cut-off"):
        list(read_pieces(find_source(str(tmp_path / f"a.jsonl{ending}"))))


def test_the_largest_window_of_zstd_is_read(tmp_path):
    """zstd --long=31 (RFC 8878: a window may have up to 3.75 TiB; the library, zstd 1.5, takes up to 2^31 if it is told to)."""
    parameter = zstd.CompressionParameter
    compressor = zstd.ZstdCompressor(options={parameter.window_log: 31, parameter.enable_long_distance_matching: 1})
    content = compressor.compress(TEXT) + compressor.flush()
    with pytest.raises(zstd.ZstdError, match="too much memory"):
        zstd.decompress(content)
    assert read(write(tmp_path, ".zst", content)) == (TEXT, "")


def test_skippable_frames_are_skipped_and_known_as_zstd(tmp_path):
    """pzstd and seekable zstd write them (RFC 8878, section 3.1.2: magic 0x184D2A50 to 5F, a size, and what is to be skipped)."""
    skippable = struct.pack("<II", 0x184D2A5E, 7) + b"skipped"
    content = skippable + zstd.compress(TEXT[:3000]) + skippable + zstd.compress(TEXT[3000:]) + skippable
    for ending in (".zst", ".txt"):
        assert read(write(tmp_path, ending, content)) == (TEXT, "")


@pytest.mark.parametrize("content", [b"Not compressed at all.\n", b"", b"\x1f"], ids=["text", "empty", "a-byte"])
@every_ending
def test_a_file_that_is_not_what_its_ending_says_is_refused(tmp_path, ending, content):
    (tmp_path / f"a.txt{ending}").write_bytes(content)
    message = f"is no {KINDS[ending]} in spite of its name.*drop {ending} from its name" if content else "is empty"
    with pytest.raises(DataError, match=message):
        list(read_pieces(find_source(str(tmp_path / f"a.txt{ending}"))))


def test_another_compression_than_the_ending_s_is_read_as_what_it_is(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(COMPRESS[".zst"](b'{"text": "One."}\n'))
    assert [piece.text for piece in read_pieces(find_source(str(tmp_path / "a.jsonl.gz")))] == ["One."]


def test_damaged_parquet_is_named(tmp_path):
    pytest.importorskip("pyarrow")
    write_parquet(tmp_path / "a.parquet", [f"The text {i}." for i in range(500)])
    whole = (tmp_path / "a.parquet").read_bytes()
    for content in (whole[:-100], b"no parquet", b"PAR1"):
        (tmp_path / "a.parquet").write_bytes(content)
        with pytest.raises(DataError, match="a.parquet: damaged or no parquet"):
            list(read_pieces(find_source(str(tmp_path / "a.parquet"))))


def test_the_checksums_of_parquet_s_pages_are_verified(tmp_path):
    """Spark's parquet-mr writes them; pyarrow (26.0.1) writes and verifies them only if told to, and gives other text else."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    texts = [f"The text {i}." for i in range(500)]
    options = {"write_page_checksum": True, "compression": "none", "use_dictionary": False}
    parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet", **options)
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content.replace(b"The text 17.", b"The test 17."))
    assert parquet.read_table(tmp_path / "a.parquet")["text"][17].as_py() == "The test 17."
    with pytest.raises(DataError, match="a.parquet: damaged or no parquet after row 0"):
        list(read_pieces(find_source(str(tmp_path / "a.parquet"))))
