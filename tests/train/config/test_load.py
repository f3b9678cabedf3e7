"""The config file: defaults, checks, overrides, and the commented text that init writes."""

import dataclasses
import re
from pathlib import Path

import pytest

from retrieval.common.errors import ConfigError
from retrieval.features.schema import Feature
from train.config import options
from train.config.components import ENCODERS, encoder_class
from train.config.load import Config, load
from train.config.options import Attention, Ease
from train.config.render import reference, render
from train.model.notebook_encoders import NotebookAttentionOptions, NotebookMlpOptions, RollingAttentionOptions


def write(folder: Path, text: str) -> Path:
    path = folder / "twotower.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_empty_file_is_a_config(tmp_path: Path) -> None:
    config = load(write(tmp_path, ""))
    assert config.data.user == "user_id"
    assert config.user_features == (Feature(name="history", kind="history"),)
    assert config.item_features == (Feature(name="item_id", kind="category"),)
    assert config.split.kind == "leave-one-out"
    assert config.model.dim is None
    assert config.train.seed == 0
    assert config.table("x.csv") == tmp_path / "x.csv"


def test_a_folder_stands_for_its_config(tmp_path: Path) -> None:
    write(tmp_path, "[train]\nepochs = 7\n")
    assert load(tmp_path).train.epochs == 7


def test_the_contracts_example_is_read(tmp_path: Path) -> None:
    config = load(
        write(
            tmp_path,
            """
            [data]
            interactions = "i.parquet"
            title = "title"
            [user.features]
            age        = "number"
            history    = { kind = "history", max_length = 50 }
            [item.features]
            genres  = { kind = "categories", separator = "|" }
            poster  = { kind = "vector", size = 384 }
            words   = { kind = "hash", buckets = 1000 }
            [split]
            kind = "new-users"
            [model]
            dim = 64
            encoder = "attention"
            [train]
            objective = "softmax"
            lr = 1
            """,
        )
    )
    assert config.features("item")[0] == Feature(name="genres", kind="categories", separator="|")
    assert config.features("item")[1].size == 384
    assert config.features("item")[2].buckets == 1000
    assert config.history is not None
    assert config.history.max_length == 50
    assert config.model.user == Attention()
    assert config.model.item is None
    assert config.train.lr == 1.0
    assert Config.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("model", "user", "item"),
    [
        ('encoder = "notebook-attention"', NotebookAttentionOptions(), NotebookAttentionOptions()),
        ('encoder = { user = "notebook-mlp" }', NotebookMlpOptions(), None),
        (
            'encoder = { item = { encoder = "notebook-mlp", last_relu = true } }',
            None,
            NotebookMlpOptions(last_relu=True),
        ),
        ('encoder = "attention"\n[model.user]\nlayers = 2', Attention(layers=2), None),
        ('[model.item]\nencoder = "rolling-attention"\nwindow = 5', None, RollingAttentionOptions(window=5)),
        ('dim = "auto"', None, None),
    ],
)
def test_encoders_for_both_towers_or_each(tmp_path: Path, model: str, user: object, item: object) -> None:
    config = load(write(tmp_path, f"[model]\n{model}\n"))
    assert (config.model.user, config.model.item) == (user, item)
    assert Config.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[data]\nusr = 1", r'data\.usr is not a key; did you mean "user"\?'),
        ("[trian]\nepochs = 1", r'trian is not a section; did you mean "train"\?'),
        ("data = 3", r"data is 3, expected a table"),
        ("[data]\nuser = 3", r"data\.user is 3, expected text in quotes"),
        ('[data]\nuser = ""', r"data\.user is empty"),
        ('[train]\nepochs = "ten"', r'train\.epochs is "ten", expected a whole number'),
        ("[train]\nepochs = 1.5", r"train\.epochs is 1\.5, expected a whole number"),
        ("[train]\nepochs = true", r"train\.epochs is true, expected a whole number"),
        ("[train]\nepochs = 0", r"train\.epochs is 0, expected at least 1"),
        ("[train]\nlr = 0", r"train\.lr is 0\.0, expected more than 0"),
        ("[train]\nlr = nan", r"train\.lr is NaN, expected a number"),
        ("[split]\ntest = 1", r"split\.test is 1\.0, expected less than 1"),
        ('[split]\nkind = "new-user"', r'expected one of .*did you mean "new-users"\?'),
        ('[train]\nobjective = "softmx"', r'did you mean "softmax"\?'),
        ('[user.features]\nage = "nmber"', r'user\.features\.age has kind "nmber".*did you mean "number"\?'),
        ("[user.features]\nage = 3", r"user\.features\.age is 3, expected a kind"),
        ("[user]\nfeature = 3", r'user\.feature is not a key; did you mean "features"\?'),
        ("[user.features]", r"user\.features is \{\}, expected a table with a feature or more"),
        ('[user.features]\nx = { kind = "vector" }', r"a vector needs its size"),
        ('[user.features]\nx = { kind = "hash" }', r"a hash needs its buckets"),
        ('[user.features]\nx = { kind = "number", size = 3 }', r"size belongs to kind vector"),
        ('[user.features]\nx = { kind = "vector", sizes = 3 }', r'did you mean "size"\?'),
        ('[user.features]\na = "history"\nb = "history"', r"two histories, a and b"),
        ('[item.features]\na = "history"', r"an item has no history"),
        ('[model]\nencoder = "atention"', r'did you mean "attention"\?'),
        ("[model]\nencoder = 3", r"model\.encoder is 3"),
        ('[model.item]\nencoder = "attention"', r"the item tower takes one of mean, mlp"),
        ("[model.item]\nheads = 2", r"model\.item has no encoder"),
        ('[model.user]\nencoder = "notebook-attention"\nheads = 7', r"7 heads do not divide embed = 128"),
        ('[model.user]\nencoder = "rolling-attention"\nwindow = 200', r"window = 200 is larger than embed = 128"),
        ('[model.user]\nencoder = "rolling-attention"\nheads = 3', r"3 heads do not divide width = 32"),
        ("[model]\ndim = 10\nheads = 4", r"4 heads do not divide dim = 10"),
        ('[model.user]\nencoder = "notebook-mlp"\nhiden = 3', r'did you mean "hidden"\?'),
        ("[model]\ndims = 3", r'model\.dims is not a key; did you mean "dim"\?'),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=expected) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "nothing.toml")
    with pytest.raises(ConfigError, match="not TOML"):
        load(write(tmp_path, "[data\n"))
    path = tmp_path / "twotower.toml"
    path.write_bytes(b"\xff\xfe[data]")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(path)


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "[train]\nepochs = 7\nseed = 1\n")
    config = load(path, overrides=["train.epochs=3", "train.objective=bpr", "item.features.x={kind='vector',size=2}"])
    assert (config.train.epochs, config.train.seed, config.train.objective) == (3, 1, "bpr")
    assert [feature.name for feature in config.item_features] == ["x"]


@pytest.mark.parametrize("text", ["train", "train.epochs", "=3", "train.epochs=", "a b=1"])
def test_an_override_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"--set .*expected section\.key=value"):
        load(write(tmp_path, ""), overrides=[text])


def test_an_error_in_an_override_blames_the_override(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'^--set train\.epoch is not a key; did you mean "epochs"\?'):
        load(write(tmp_path, ""), overrides=["train.epoch=3"])


def test_text_is_read_back_as_it_was_meant_and_uncommented_defaults_change_nothing(tmp_path: Path) -> None:
    text = render(
        heading='Two\nlines, "quoted"',
        data={"interactions": 'a "b".csv', "user": "Größe", "item": "id"},
        features={
            "user": [Feature(name="the age", kind="number"), Feature(name="history", kind="history", max_length=9)],
            "item": [Feature(name="id", kind="category"), Feature(name="g", kind="categories", separator="\t")],
        },
        remarks={("user", "the age"): "18 to 73"},
        model={"dim": 32, "user": {"encoder": "notebook-mlp", "last_relu": True}},
        train={"objective": "rating"},
    )
    config = load(write(tmp_path, text))
    assert config.data.interactions == 'a "b".csv'
    assert [feature.name for feature in config.user_features] == ["the age", "history"]
    assert config.item_features[1].separator == "\t"
    assert config.model.user == NotebookMlpOptions(last_relu=True)
    assert "# 18 to 73" in text
    assert max(map(len, text.splitlines())) <= 120
    # Every commented key is a valid one, with its default.
    whole = re.sub(r'(?m)^# (\w+ = (?!"\.\.\."))', r"\1", text)
    assert whole.count("auto") == text.count("auto") > 5
    assert load(write(tmp_path, whole)) == config


def test_every_encoder_has_a_side_and_a_sentence() -> None:
    for name in ENCODERS:
        encoder = encoder_class(name)
        assert encoder.Options().encoder == name
        assert encoder.sides
        assert encoder.__doc__


def test_keys_of_the_previous_release_are_read_with_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = """
[model.user]
encoder = "attention"
short_cut = 0.4
short_cut_items = 10
[model.item]
encoder = "seed-mlp"
[train]
teaching = 0.2
horizon = 0.5
[model.linear]
share = 0.4
decay = 0.8
"""
    path = write(tmp_path, old)
    config = load(path, overrides=["train.impressions=3.0"])
    assert config.model.user == Attention(residual_dropout=0.4)
    assert config.model.item == NotebookMlpOptions()
    assert config.train.impression_weight == 3.0
    assert config.model.ease == Ease(weight=0.4, recency_decay=0.8)
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == len(set(notes)) == 8
    assert f"{path}: model.linear.share is now model.ease.weight; rename it" in notes
    assert "--set train.impressions is now train.impression_weight; rename it" in notes
    assert any("train.teaching is ignored" in line for line in notes)
    assert any("model.user.short_cut_items is ignored" in line for line in notes)
    assert any('the encoder "seed-mlp" is now "notebook-mlp"' in line for line in notes)
    assert Config.from_dict(config.to_dict()) == config
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    "old",
    ['[train]\nstart = "linear"', '[model]\nencoder = "sum"', '[model.user]\nencoder = "sum"\ndecay = 0.8'],
)
def test_ease_alone_under_its_old_names(tmp_path: Path, old: str) -> None:
    config = load(write(tmp_path, old))
    assert config.model.user is None
    assert config.model.ease.weight == 1.0
    assert config.model.ease.recency_decay == (0.8 if "decay" in old else None)


def test_the_reference_page_is_generated_and_lists_every_key() -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "config.md").read_text(encoding="utf-8")
    assert "```{include} ../_generated/config.md" in page
    text = reference()
    for section in (options.Data, options.Split, options.Model, options.Ease, options.Train):
        for field in dataclasses.fields(section):
            if field.metadata:
                assert f"| `{field.name}` |" in text
