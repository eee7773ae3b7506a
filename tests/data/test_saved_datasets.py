"""Folders that Hugging Face `datasets` saved: rows of text are a text source, rows of input_ids indexed data."""

import json
from pathlib import Path

import pytest

from robustbert.config import CorpusConfig, DataConfig
from robustbert.data.errors import DataError
from robustbert.data.foreign.corpus import open_foreign, prepare_foreign
from robustbert.data.prepare import prepare_run
from robustbert.data.shards import find_prefixes
from robustbert.data.text.readers import find_source, read_pieces
from robustbert.data.text.records import ReaderOptions
from tests.data.conftest import make_text
from tests.data.test_foreign import documents_of

@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [" ".join(document.split()) for document in make_text(2300, sentences_per_document=2).split("\n\n\n")]


def save(folder: Path, columns: dict, num_shards: int = 1) -> Path:
    """As save_to_disk writes it: streams of record batches of 1,000 rows, and a file that names them."""
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.ipc

    folder.mkdir(parents=True)
    table = arrow.table(columns)
    rows = -(-len(table) // num_shards)
    names = [f"data-{number:05d}-of-{num_shards:05d}.arrow" for number in range(num_shards)]
    for number, name in enumerate(names):
        with pyarrow.ipc.new_stream(folder / name, table.schema) as stream:
            stream.write_table(table.slice(number * rows, rows), max_chunksize=1000)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    return folder


def rows_of(folder, tokenizer):
    side = folder.parent / "side"
    prepare_foreign(folder, side, tokenizer, "small")
    return open_foreign(folder, side, tokenizer)


@pytest.mark.parametrize("framed", [False, True])
def test_each_row_of_input_ids_is_a_document(texts, tokenizer, tmp_path, framed):
    ids = [tokenizer.encode(text) for text in texts]
    rows = [[0, *row, 2] for row in ids] if framed else ids
    folder = save(tmp_path / "ids", {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}, 3)
    corpus = rows_of(folder, tokenizer)  # 3 files, a record batch every 1,000 rows
    assert documents_of(corpus) == [[row] for row in ids] and not corpus.has_sentences
    flat = [id_ for row in ids for id_ in row]
    for start, stop in ((0, len(flat)), (17, 30_000), (len(flat) - 5, len(flat))):
        assert corpus.tokens[start:stop].tolist() == flat[start:stop]


def test_a_dictionary_of_splits_trains_on_train_and_holds_validation_out(texts, tokenizer, tokenizer_dir, tmp_path):
    splits = {"train": texts[:200], "validation": texts[200:260], "test": texts[260:280]}
    for name, part in splits.items():
        save(tmp_path / "splits" / name, {"input_ids": [tokenizer.encode(text) for text in part]})
    (tmp_path / "splits/dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    corpus = (CorpusConfig(path=str(tmp_path / "splits")),)
    config = DataConfig(str(tokenizer_dir), corpus, corpus, sequence_length=64, prepare_workers=1)
    prepared = prepare_run(config, tmp_path / "data")
    counts = [part.num_documents for entry in (*prepared.train, *prepared.valid) for part in entry.open_parts(tokenizer)]
    assert counts == [200, 60]
    with pytest.raises(DataError, match=r"a saved data set of several splits; name the folder of one, for instance .*splits/train"):
        find_source(str(tmp_path / "splits"))
    (tmp_path / "splits/dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    with pytest.raises(DataError, match="has the splits train, test, and none is plainly valid"):
        find_prefixes(str(tmp_path / "splits"), "valid")


def test_rows_of_text_are_a_text_source(texts, tmp_path):
    folder = save(tmp_path / "text", {"text": texts, "title": texts}, 2)
    source = find_source(str(folder))
    assert source.reader == "arrow" and len(source.files) == 2
    assert [piece.text for piece in read_pieces(source)] == texts
    (file, _), options = source.files, ReaderOptions(text_field="title")
    assert find_source(str(file)).reader == "arrow", "by its content"
    assert [piece.text for piece in read_pieces(find_source(str(folder), options=options))] == texts
    with pytest.raises(DataError, match="has no text in a field `body` .its fields: text, title.; .*--text-field"):
        list(read_pieces(find_source(str(folder), options=ReaderOptions(text_field="body"))))
    with pytest.raises(DataError, match=r"has no column `input_ids` \(its columns: text, title\); name it as `text: .*text`"):
        rows_of(folder, None)


def test_what_is_no_such_data_set_is_refused_in_one_line(texts, tokenizer, tmp_path):
    ids = [tokenizer.encode(text) for text in texts[:40]]
    padded = save(tmp_path / "padded", {"input_ids": [(row + [1] * 300)[:300] for row in ids]})
    cut = save(tmp_path / "cut", {"input_ids": ids})
    file = next(cut.glob("*.arrow"))
    file.write_bytes(file.read_bytes()[:200])
    gone = save(tmp_path / "gone", {"input_ids": ids})
    next(gone.glob("*.arrow")).unlink()
    floats = save(tmp_path / "floats", {"input_ids": [[0.5]] * 3})
    nulls = save(tmp_path / "nulls", {"input_ids": [[5, 6], None]})
    for folder, message in (
        (padded, "holds <pad> inside"),
        (cut, "damaged, or no stream of record batches"),
        (gone, r"\.arrow is missing; copy the folder again"),
        (floats, "lists of whole numbers are read"),
        (nulls, "rows or ids that are null"),
    ):
        with pytest.raises(DataError, match=message) as refusal:
            rows_of(folder, tokenizer)
        assert "\n" not in str(refusal.value)
    ids_as_text = find_source(str(save(tmp_path / "ids", {"input_ids": ids})))
    with pytest.raises(DataError, match="holds input_ids and no text; name its folder as `path`"):
        list(read_pieces(ids_as_text))


@pytest.mark.slow
def test_what_datasets_itself_saves_is_read(texts, tokenizer, tmp_path):
    """datasets 5.2.0: also rows of a fixed length, and rows that select() chose, which are copied when they are saved."""
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install '.[benchmarks]'")
    ids = [tokenizer.encode(text) for text in texts]
    rows = datasets.Dataset.from_dict({"input_ids": ids, "text": texts})
    rows.select(range(2200, 100, -1)).save_to_disk(tmp_path / "chosen", num_shards=2)
    assert documents_of(rows_of(tmp_path / "chosen", tokenizer)) == [[row] for row in ids[2200:100:-1]]
    assert [piece.text for piece in read_pieces(find_source(str(tmp_path / "chosen")))] == texts[2200:100:-1]
    blocks = [(ids[i] + ids[i + 1] + ids[i + 2])[:8] for i in range(0, 300, 3)]
    fixed = datasets.Features({"input_ids": datasets.Sequence(datasets.Value("int64"), length=8)})
    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"input_ids": blocks}, features=fixed)}).save_to_disk(tmp_path / "fixed")
    (folder,) = find_prefixes(str(tmp_path / "fixed"))
    assert documents_of(rows_of(folder, tokenizer)) == [[row] for row in blocks]
