"""Files in all their habits, and files that cannot be read: a clear error, or a refused row with its number."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.core.errors import NotFound, StorageError, UnknownColumns, UnreadableFile
from penchant.data import Settings, clean_events, open_source, recognise
from penchant.data._source_csv import sniff_delimiter

HEADER = "user_id,item_id,kind,ts\n"
LINES = "".join(f"u{n},item-{n % 3},view,2024-05-0{n % 9 + 1}\n" for n in range(20))


def rows_of(path: Path) -> list[dict]:
    return [row for batch in open_source(path).batches() for row in batch.to_pylist()]


def compressed(name: str, text: str) -> bytes:
    raw = text.encode()
    if name.endswith(".gz"):
        return gzip.compress(raw)
    if name.endswith(".zst"):
        return pa.compress(raw, codec="zstd", asbytes=True)
    return raw


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.csv.zst", "log"])
def test_csv_plain_and_compressed(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(compressed(name, HEADER + LINES))
    source = open_source(path)
    assert (source.format, source.columns) == ("csv", ["user_id", "item_id", "kind", "ts"])
    assert len(rows_of(path)) == 20
    assert rows_of(path)[1] == {"user_id": "u1", "item_id": "item-1", "kind": "view", "ts": "2024-05-02"}


@pytest.mark.parametrize("name", ["log.jsonl", "log.json.gz", "log.ndjson.zst"])
@pytest.mark.parametrize("array", [False, True])
def test_json_lines_and_arrays(tmp_path, name, array):
    items = [
        {"user": f"u{n}", "tags": ["a", {"b": n}], "price": 1.5, "ok": True, "none": None} for n in range(9)
    ]
    text = json.dumps(items, indent=2) if array else "\n".join(json.dumps(i) for i in items)
    path = tmp_path / name
    path.write_bytes(compressed(name, text))
    assert rows_of(path)[3] == {
        "user": "u3",
        "tags": '["a",{"b":3}]',
        "price": "1.5",
        "ok": "true",
        "none": None,
    }
    assert open_source(path).sample().objects == items


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_parquet_plain_and_compressed(tmp_path, suffix):
    raw = io.BytesIO()
    pq.write_table(pa.table({"user": [1, 2], "item": ["a", None]}), raw)
    path = tmp_path / f"log.parquet{suffix}"
    content = raw.getvalue()
    path.write_bytes(
        gzip.compress(content)
        if suffix == ".gz"
        else pa.compress(content, "zstd", asbytes=True)
        if suffix == ".zst"
        else content
    )
    assert rows_of(path) == [{"user": 1, "item": "a"}, {"user": 2, "item": None}]


@pytest.mark.parametrize(
    ("delimiter", "name"), [(",", "a.csv"), (";", "a.csv"), ("\t", "a.tsv"), ("|", "a.txt")]
)
def test_delimiters_quoted_newlines_and_byte_order_mark(tmp_path, delimiter, name):
    path = tmp_path / name
    lines = [["user", "note"], ["u1", f'"two\nlines{delimiter} and ""quotes"""'], ["u2", "x"]]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(delimiter.join(line) for line in lines).encode())
    assert rows_of(path) == [
        {"user": "u1", "note": f'two\nlines{delimiter} and "quotes"'},
        {"user": "u2", "note": "x"},
    ]


def test_a_file_without_a_header_gets_numbered_columns(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("1,shoe,2024-01-01\n2,hat,2024-01-02\n")
    assert open_source(path).columns == ["column_1", "column_2", "column_3"]
    assert len(rows_of(path)) == 2


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        (",user,ts\n0,u1,2024-01-01\n", ["column_1", "user", "ts"]),  # the index of a data frame
        ("user,ts,\nu1,2024-01-01,\n", ["user", "ts", "column_3"]),  # a separator too many
        ("user,ts,ts\nu1,2024-01-01,2024-01-02\n", ["user", "ts", "ts_2"]),  # a join of two tables
    ],
)
def test_a_header_with_a_missing_or_repeated_name_is_one(tmp_path, text, columns):
    path = tmp_path / "log.csv"
    path.write_text(text)
    assert open_source(path).columns == columns
    assert [row["user"] for row in rows_of(path)] == ["u1"]


@pytest.mark.parametrize("text", ["u1,,view,x\nu2,a,view,x\n", "a,a,b\nb,b,a\n"])
def test_a_gap_or_a_repeated_word_among_data_makes_no_header(tmp_path, text):
    path = tmp_path / "log.csv"
    path.write_text(text)
    assert len(rows_of(path)) == 2


def test_delimiter_that_cuts_evenly_wins():
    assert sniff_delimiter(["a;b", "1,5;2,5", "3,0;4,1"]) == ";"


@pytest.mark.parametrize(
    ("encoding", "remark"),
    [
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("cp1252", "cp1252"),
        ("utf-8", None),
    ],
)
def test_encodings_are_recognised_and_told(tmp_path, encoding, remark):
    path = tmp_path / "log.csv"
    path.write_bytes((HEADER + "Zoë,café,view,2024-05-01\n" + LINES).encode(encoding))
    source = open_source(path)
    assert rows_of(path)[0]["item_id"] == "café"
    assert ([remark in r for r in source.remarks] == [True]) if remark else source.remarks == []


_TITLES = {
    "shift_jis": ["赤い靴", "青い帽子", "日本語の題名"],
    "euc_jp": ["赤い靴", "青い帽子", "日本語の題名"],
    "gb18030": ["红色鞋子", "蓝色帽子", "手机壳"],
    "big5": ["紅色鞋子", "藍色帽子", "手機殼"],
    "euc_kr": ["빨간 신발", "파란 모자"],
    "koi8_r": ["Красные туфли", "Синяя шляпа"],
    "cp1251": ["Красные туфли", "Синяя шляпа"],
    "cp1253": ["Κόκκινα παπούτσια", "Μπλε καπέλο"],
    "cp1250": ["Łódź czerwona", "Żółta gęś", "Świeża ćma"],
    "cp1254": ["Şeker", "Yoğurt", "Kırmızı elma"],
    "cp1255": ["נעליים אדומות", "כובע כחול"],
    "cp874": ["รองเท้าสีแดง", "หมวกสีฟ้า"],
    "mac_roman": ["Café crème", "Größe M"],
}


@pytest.mark.parametrize("encoding", _TITLES)
def test_an_encoding_nobody_can_be_sure_of_is_not_guessed(tmp_path, encoding):
    path = tmp_path / "items.csv"
    rows = [f"{number},{title},1" for number, title in enumerate(_TITLES[encoding])]
    path.write_bytes("\n".join(["id,title,price", *rows, ""]).encode(encoding))
    with pytest.raises(UnreadableFile, match="is not UTF-8") as caught:
        open_source(path)
    assert "save it as UTF-8" in caught.value.hint


@pytest.mark.parametrize(
    "titles",
    [
        ["Größe M", "Käse", "Brötchen – groß", "Öl", "Äpfel", "Straße"],
        ["Crème brûlée", "L’été à la mer", "Œuf", "Pâté «maison»", "déjà-vu", "À LA CARTE"],
        ["Niño pequeño", "¿Qué? ¡Sí!", "AÑO ÚLTIMO"],
        ["Smørrebrød", "Blåbær", "Ærø"],
        ["Ísafjörður", "Þorskur", "Mjólk", "Rúgbrauð"],
        ["Shoe 12 €", "Don’t", "Size 10½", "Set of 3™"],
    ],
)
def test_words_of_western_europe_are_read_as_cp1252(tmp_path, titles):
    path = tmp_path / "items.csv"
    rows = [f"{number},{title},1" for number, title in enumerate(titles)]
    path.write_bytes("\n".join(["id,title,price", *rows, ""]).encode("cp1252"))
    assert [row["title"] for row in rows_of(path)] == titles
    assert "cp1252" in open_source(path).remarks[0]


def test_damaged_csv_lines_are_refused_alone(tmp_path):
    path = tmp_path / "log.csv"
    bad = 'x,"lost quote,view,2024-05-01\n' + "only,three,fields\n" + "a,b,c,d,e\n"
    path.write_text(HEADER + LINES + bad + LINES)
    chunks = list(open_source(path).chunks())
    damaged = [d for c in chunks for d in c.damaged]
    assert [d.row for d in damaged] == [21, 22, 23]
    assert "3 fields where 4 are expected" in damaged[1].detail
    assert sum(len(c.row) for c in chunks) == 40
    assert chunks[-1].row[-1] == 43


def test_a_csv_row_with_bytes_that_are_not_utf8_is_refused_alone(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(
        (HEADER + "Zoë,a,view,2024-05-01\n").encode() + b"\xff\xfe,b,view,2024-05-01\n" + LINES.encode()
    )
    (chunk,) = open_source(path).chunks()
    assert [(d.row, d.reason) for d in chunk.damaged] == [(2, "bad_encoding")]
    assert len(chunk.row) == 21


def test_damaged_json_lines_are_refused_alone(tmp_path):
    path = tmp_path / "log.jsonl"
    good = '{"user_id":"u1","kind":"view","ts":1}'
    bad = [
        "{nope",
        "[1,2]",
        '{"a":NaN}',
        '{"a":1e400}',
        '{"a":1,"a":2}',
        '{"a":"\\ud800"}',
        '{"o":{"b":1,"b":2}}',
    ]
    path.write_text("\n".join([good, *bad, good]))
    (chunk,) = open_source(path).chunks()
    assert [d.row for d in chunk.damaged] == [2, 3, 4, 5, 6, 7, 8]
    assert "given twice" in chunk.damaged[4].detail
    assert chunk.row.tolist() == [1, 9]


def test_a_json_array_goes_on_after_a_damaged_element(tmp_path):
    path = tmp_path / "log.json"
    path.write_text('[\n{"a": 1},\n{"a": },\n{"a": 3}\n]')
    (chunk,) = open_source(path).chunks()
    assert [d.row for d in chunk.damaged] == [2]
    assert [o["a"] for o in chunk.objects] == [1, 3]


def test_a_json_array_that_is_cut_off_says_so(tmp_path):
    path = tmp_path / "log.json"
    path.write_text('[{"a": 1}, {"a": 2}')
    (chunk,) = open_source(path).chunks()
    assert len(chunk.objects) == 2
    assert "cut off" in chunk.damaged[0].detail


def bomb(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


def test_json_depth_bomb_is_refused_without_a_crash(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"user_id":"u1"}\n' + bomb(100_000) + '\n{"user_id":"u2"}\n')
    (chunk,) = open_source(path).chunks()
    assert [(d.row, d.detail) for d in chunk.damaged] == [(2, "nested too deeply")]
    path.write_text(bomb(100_000))
    with pytest.raises(UnreadableFile, match="nested too deeply"):
        open_source(path)
    array = tmp_path / "log.json"
    array.write_text("[" * 100_000)
    with pytest.raises(UnreadableFile):
        open_source(array)


def parquet_bytes() -> bytes:
    raw = io.BytesIO()
    pq.write_table(pa.table({"user_id": [f"u{n}" for n in range(5000)]}), raw)
    return raw.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.csv", b"", "empty"),
        ("blank.csv", b" \n\n ", "blank"),
        ("log.csv.gz", gzip.compress(os.urandom(200_000), mtime=0)[:100_000], "damaged or cut off|binary"),
        ("log.csv.gz", gzip.compress((HEADER + LINES * 9).encode(), mtime=0)[:60], "damaged|cut off|nothing"),
        ("log.parquet", (HEADER + LINES).encode(), "named as Parquet but holds lines of text"),
        ("log.csv", parquet_bytes(), "holds Parquet"),
        ("log.csv", b'{"a": 1}\n', "holds JSON"),
        ("log.jsonl", (HEADER + LINES).encode(), "holds lines of text"),
        ("log.parquet", parquet_bytes()[:-200], "Parquet"),
        ("log.xlsx", b"PK\x03\x04rest", "Excel"),
        ("log.pkl", b"\x80\x04\x95\x00\x00", "pickle"),
        ("log.csv", bytes(range(256)) * 40, "binary"),
        ("log.html", b"<html></html>", "page"),
    ],
)
def test_what_cannot_be_read_says_why_and_what_to_do(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match=says) as caught:
        list(open_source(path).chunks())
    assert caught.value.hint


def test_a_folder_a_missing_and_a_forbidden_file(tmp_path, monkeypatch):
    with pytest.raises(UnreadableFile, match="is a folder"):
        open_source(tmp_path)
    with pytest.raises(NotFound, match="no file"):
        open_source(tmp_path / "none.csv")
    path = tmp_path / "log.csv"
    path.write_text(HEADER)
    opened = Path.open

    def forbidden(self, *args, **kwargs):
        if self == path:
            raise PermissionError(13, "Permission denied")
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(UnreadableFile, match="may not be read"):
        open_source(path)


def test_a_gzip_cut_off_late_raises_while_reading(tmp_path):
    path = tmp_path / "log.csv.gz"
    lines = "".join(f"u{n},i{n * 7919 % 10007},view,2024-05-01\n" for n in range(400_000))
    raw = gzip.compress((HEADER + lines).encode(), compresslevel=1)
    path.write_bytes(raw[: len(raw) - 2000])
    source = open_source(path)
    with pytest.raises(UnreadableFile, match="damaged after row"):
        list(source.chunks())


def test_a_full_folder_for_unpacking_is_named(tmp_path, monkeypatch):
    path = tmp_path / "log.parquet.gz"
    table = io.BytesIO()
    pq.write_table(pa.table({"user_id": ["u"]}), table)
    path.write_bytes(gzip.compress(table.getvalue()))

    class Full(io.BytesIO):
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.SpooledTemporaryFile", lambda *_: Full())
    with pytest.raises(StorageError, match="the disk is full") as caught:
        open_source(path)
    assert tempfile.gettempdir() in caught.value.message


def test_a_damaged_parquet_page_raises_while_reading(tmp_path):
    raw = bytearray(parquet_bytes())
    raw[40:400] = os.urandom(360)
    path = tmp_path / "log.parquet"
    path.write_bytes(raw)
    with pytest.raises(UnreadableFile):
        list(open_source(path).chunks())


def test_long_files_are_read_in_blocks_with_running_row_numbers(tmp_path, monkeypatch):
    from penchant.data import _source_csv

    monkeypatch.setattr(_source_csv, "BLOCK", 100)
    path = tmp_path / "log.csv"
    path.write_text(HEADER + LINES + "broken\n" + LINES + 'u,"a\nb",view,2024-05-01\n' + LINES)
    chunks = list(open_source(path).chunks())
    assert len(chunks) > 5
    numbers = sorted([n for c in chunks for n in c.row.tolist()] + [d.row for c in chunks for d in c.damaged])
    assert numbers == list(range(1, 63))
    assert [d.row for c in chunks for d in c.damaged] == [21]


@settings(deadline=None, max_examples=80)
@given(st.binary(max_size=400), st.sampled_from(["f", "f.csv", "f.jsonl", "f.parquet", "f.csv.gz", "f.json"]))
def test_any_bytes_are_an_error_of_ours_or_counts_that_add_up(tmp_path_factory, content, name):
    path = tmp_path_factory.getbasetemp() / f"any-{name}"
    path.write_bytes(content)
    check(path)


@settings(deadline=None, max_examples=80)
@given(st.text(max_size=300), st.sampled_from(["", '{"user_id":"u","kind":"view","ts":1}\n', HEADER]))
def test_any_text_is_an_error_of_ours_or_counts_that_add_up(tmp_path_factory, content, start):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(start.encode() + content.encode("utf-8", "surrogatepass"))
    check(path)


def check(path: Path) -> None:
    try:
        source = open_source(path)
        found = recognise(source)
    except (UnreadableFile, UnknownColumns):
        return
    if found.what != "events":
        return
    stream = clean_events(source, found, Settings(), 1_730_000_000_000_000)
    try:
        accepted = sum(b.num_rows for b in stream.accepted())
    except UnreadableFile:
        return
    report = stream.report
    refused = sum(b.num_rows for b in stream.refused())
    assert report.events == accepted + refused == report.accepted + report.refused
    assert report.rows <= report.events


@pytest.mark.parametrize(
    "name", ["log.csv", "log.csv.gz", "log.csv.zst", "log.jsonl", "log.parquet", "utf16.csv"]
)
def test_how_far_a_look_through_a_file_came_is_known(tmp_path, monkeypatch, name):
    from penchant.data import _source_csv, _source_json, _source_parquet

    monkeypatch.setattr(_source_csv, "BLOCK", 1 << 16)
    monkeypatch.setattr(_source_json, "BLOCK", 1 << 16)
    monkeypatch.setattr(_source_json, "_CHUNK_ROWS", 5_000)
    monkeypatch.setattr(_source_parquet, "CHUNK_ROWS", 5_000)
    path, count = tmp_path / name, 20_000
    items = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(count)]
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"user_id": ["u"] * count, "item_id": items}), path)
    elif ".jsonl" in name:
        path.write_text("".join(f'{{"user_id":"u","item_id":"{item}"}}\n' for item in items))
    else:
        text = "user_id,item_id\n" + "".join(f"u,{item}\n" for item in items)
        content = text.encode("utf-16" if name.startswith("utf16") else "utf-8")
        compression = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
        with pa.output_stream(str(path), compression=compression) as out:
            out.write(content)
    source = open_source(path)
    assert source.unit == ("rows" if name.endswith(".parquet") else "bytes")
    assert source.total == (count if name.endswith(".parquet") else path.stat().st_size)
    done = [source.done for _ in source.chunks()]
    assert len(done) > 3
    assert done == sorted(done)
    assert 0 < done[0] < done[-2] <= source.total
    assert source.done == source.total
