"""The embedded models do what their cards say, and loading refuses what it should, in words."""

import json
import logging
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from hf_attnviz import zoo
from hf_attnviz.errors import ArgumentError, ModelError, UnknownNameError
from hf_attnviz.zoo import grammar, training, wordfinder
from hf_attnviz.zoo.loading import MODELS

AUTO = {"induction": AutoModelForCausalLM, "translator": AutoModelForSeq2SeqLM, "wordfinder": AutoModelForCausalLM}
NAMES = sorted(AUTO)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What transformers logs; it keeps its log from the root logger, where pytest listens."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    return caplog


def eager(name: str) -> tuple[Any, Any]:
    model = AUTO[name].from_pretrained(MODELS / name, attn_implementation="eager").eval()
    return model, AutoTokenizer.from_pretrained(MODELS / name)


def sequences(words: int, period: int, count: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(4711)
    chunks = [(torch.randperm(words - 4, generator=generator)[:period] + 4).tolist() for _ in range(count)]
    return [[1, *chunk, *chunk] for chunk in chunks]


def test_all_models_are_there() -> None:
    assert list(zoo.names()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_load_without_network(name: str, no_network: None) -> None:
    loaded = zoo.load(name)
    assert loaded.name == name
    assert not loaded.model.training
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    assert loaded.processor.unk_token_id not in [
        token for text in loaded.examples for token in loaded.processor(text).input_ids
    ]
    assert any("一" <= letter <= "鿿" for text in loaded.examples for letter in text)
    assert type(loaded.model).__name__ == type(zoo.load_model(name).model).__name__


@pytest.mark.parametrize("name", NAMES)
def test_plain_transformers_load_the_folder(name: str, spoken: pytest.LogCaptureFixture) -> None:
    model, processor = eager(name)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert len(processor) == model.config.vocab_size
    inputs = processor(zoo.load(name).examples[0], return_tensors="pt")
    model.generate(**inputs)
    model.generate(**inputs, max_new_tokens=3)
    assert spoken.messages == []


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_is_small(name: str) -> None:
    sizes = {path.name: path.stat().st_size for path in (MODELS / name).iterdir()}
    assert set(sizes) == set(training.FILES)
    assert sizes["model.safetensors"] <= 500_000
    assert sum(sizes.values()) < 600_000
    parameters = sum(parameter.numel() for parameter in zoo.load(name).model.parameters())
    assert parameters <= 200_000
    assert sizes["model.safetensors"] < 2 * parameters + 20_000, "half precision, tied weights once"


def test_the_mlps_of_induction_do_nothing() -> None:
    for block in zoo.load("induction").model.transformer.h:
        assert not any(block.mlp.c_proj.state_dict()[key].any() for key in ("weight", "bias"))


@pytest.mark.parametrize("period", [4, 12, 24, 31])
def test_induction_continues_what_it_saw(period: int) -> None:
    model, processor = eager("induction")
    ids = torch.tensor(sequences(len(processor), period, 100))
    with torch.no_grad():
        guesses = model(ids).logits.argmax(-1)
    right = (guesses[:, period + 1 : -1] == ids[:, period + 2 :]).float().mean()
    assert right > 0.99


def test_induction_scores_by_plain_loops() -> None:
    model, processor = eager("induction")
    truth = zoo.load("induction").truth
    rows = sequences(len(processor), 24, 20)
    with torch.no_grad():
        attentions = model(torch.tensor(rows), output_attentions=True).attentions
    for layer, attention in enumerate(attentions):
        for head in range(attention.shape[1]):
            induction, previous = [], []
            for row, weights in zip(rows, attention[:, head].tolist(), strict=True):
                for query in range(1, len(row)):
                    previous.append(weights[query][query - 1])
                    copies = [key for key in range(query) if row[key] == row[query]]
                    if copies:
                        induction.append(sum(weights[query][key + 1] for key in copies))
            score, before = sum(induction) / len(induction), sum(previous) / len(previous)
            assert score == pytest.approx(truth["scores"]["induction"][layer][head], abs=0.02)
            assert before == pytest.approx(truth["scores"]["previous_token"][layer][head], abs=0.02)
            assert (score > 0.9) == ([layer, head] in truth["induction_heads"])
    assert {layer for layer, _ in truth["induction_heads"]} == {1}
    assert truth["previous_token_heads"]
    assert {layer for layer, _ in truth["previous_token_heads"]} == {0}


@pytest.mark.parametrize(
    ("text", "next_words"),
    [
        ("sun moon star rain sun moon star", "rain sun moon"),
        ("春 夏 秋 冬 春 夏 秋", "冬 春 夏"),
        ("花鸟鱼狗猫花鸟", "鱼 狗 猫"),
    ],
)
def test_induction_generates(text: str, next_words: str) -> None:
    loaded = zoo.load("induction")
    inputs = loaded.processor(text, return_tensors="pt")
    written = loaded.model.generate(**inputs, max_new_tokens=3)[0, inputs["input_ids"].shape[1] :]
    assert loaded.processor.decode(written) == next_words


def test_translator_translates_fresh_sentences() -> None:
    model, processor = eager("translator")
    pairs = list(islice(grammar.sentences(87_654_321), 300))
    inputs = processor(["".join(pair.source) for pair in pairs], padding=True, return_tensors="pt")
    for pair, ids in zip(pairs, inputs["input_ids"], strict=True):
        assert tuple(processor.convert_ids_to_tokens(ids, skip_special_tokens=True)) == pair.source
    written = processor.batch_decode(model.generate(**inputs), skip_special_tokens=True)
    right = sum(text == " ".join(pair.target).replace(" 's", "'s") for text, pair in zip(written, pairs, strict=True))
    assert right / len(pairs) > 0.99


@pytest.mark.parametrize(
    ("text", "fruit"), [*zip(wordfinder.EXAMPLES, ("plum", "melon", "柠檬", "nothing"), strict=True)]
)
def test_the_word_finder_names_the_fruit(text: str, fruit: str) -> None:
    loaded = zoo.load("wordfinder")
    inputs = loaded.processor(text, return_tensors="pt")
    said = loaded.model(**inputs).logits[0].argmax(-1)
    names = [loaded.processor.decode([one]) for one in said]
    behind = [n for n, word in enumerate(loaded.processor.tokenize(text), 1) if word == fruit] or [0]
    assert names == ["nothing"] * behind[0] + [fruit] * (len(names) - behind[0])


def test_the_word_finder_reads_a_long_text_and_its_heads_look_at_the_fruit() -> None:
    """Row by row by plain arithmetic: what each of a few rows of layer 0 sees, from the weights of its projections."""
    loaded, generator = zoo.load("wordfinder"), torch.Generator().manual_seed(77)
    first = wordfinder.FIRST + len(wordfinder.NAMES)
    words = torch.randint(first, len(loaded.processor) - 1, (1, 8_192), generator=generator)
    words[0, 0], words[0, 5_000] = 1, loaded.processor.convert_tokens_to_ids("mango")
    with torch.no_grad():
        said = loaded.model(words, use_cache=False).logits[0].argmax(-1)
        layer = loaded.model.model.layers[0]
        read = layer.input_layernorm(loaded.model.model.embed_tokens(words[0]))
        query, key = layer.self_attn.q_proj(read).double(), layer.self_attn.k_proj(read).double()
    mango, nothing = loaded.processor.convert_tokens_to_ids(["mango", "nothing"])
    assert said[5_000:].eq(mango).float().mean() > 0.99
    assert said[:5_000].eq(nothing).float().mean() > 0.99
    weights = [0.0] * 4
    for row in (5_100, 6_000, 7_000, 8_191):
        for head in range(4):
            scores = key[: row + 1, head // 2 * 16 : head // 2 * 16 + 16] @ query[row, head * 16 : head * 16 + 16] / 4
            weights[head] += float(scores.softmax(-1)[5_000]) / 4
    assert all(weights[head] > 0.5 for layer, head in loaded.truth["finding_heads"] if layer == 0)
    assert loaded.telling_layer == 0


@pytest.mark.parametrize("text", ["我爱吃北京烤鸭", "我 爱 吃 北京 烤鸭", "我爱吃 北 京烤鸭。"])
def test_peking_duck(text: str) -> None:
    loaded = zoo.load("translator")
    written = loaded.model.generate(**loaded.processor(text, return_tensors="pt"))
    assert loaded.processor.decode(written[0], skip_special_tokens=True) == "I love Peking duck"


def test_every_example_is_translated_as_its_truth_says() -> None:
    loaded = zoo.load("translator")
    assert set(loaded.truth["alignments"]) == set(loaded.examples) == set(grammar.EXAMPLES)
    for text, truth in loaded.truth["alignments"].items():
        assert loaded.processor.tokenize(text) == truth["source"]
        written = loaded.model.generate(**loaded.processor(text, return_tensors="pt"))[0]
        assert loaded.processor.convert_ids_to_tokens(written, skip_special_tokens=True) == truth["target"]
        assert {source for source, _ in truth["links"]} == set(range(len(truth["source"])))
        assert {target for _, target in truth["links"]} == set(range(len(truth["target"])))


def cross_rows(model: Any, processor: Any, pair: grammar.Pair, head: list[int]) -> list[list[float]]:
    source = processor(" ".join(pair.source), return_tensors="pt")
    target = processor.convert_tokens_to_ids(["<s>", *pair.target])
    with torch.no_grad():
        output = model(**source, decoder_input_ids=torch.tensor([target]), output_attentions=True)
    rows: list[list[float]] = output.cross_attentions[head[0]][0, head[1]].tolist()
    return rows


def test_alignment_error_rate_by_set_arithmetic() -> None:
    model, processor = eager("translator")
    truth = zoo.load("translator").truth
    found, sure, both_sure, both_possible = 0, 0, 0, 0
    for pair in islice(grammar.sentences(13_579), 200):
        rows = cross_rows(model, processor, pair, truth["alignment_head"])
        links = {
            (max(range(len(pair.source)), key=rows[place].__getitem__), place) for place in range(len(pair.target))
        }
        found += len(links)
        sure += len(pair.sure)
        both_sure += len(links & {tuple(link) for link in pair.sure})
        both_possible += len(links & {tuple(link) for link in pair.links})
    rate = 1 - (both_sure + both_possible) / (found + sure)
    assert rate < 0.05
    assert rate == pytest.approx(truth["aer"], abs=0.015)


def test_peking_and_duck_are_aligned() -> None:
    model, processor = eager("translator")
    pair = grammar.EXAMPLES["我爱吃北京烤鸭"]
    rows = cross_rows(model, processor, pair, zoo.load("translator").truth["alignment_head"])
    for source, target in (("北京", "Peking"), ("烤鸭", "duck"), ("我", "I")):
        row = rows[pair.target.index(target)]
        assert row[pair.source.index(source)] > 0.5
    love = rows[pair.target.index("love")]
    assert love[pair.source.index("爱")] + love[pair.source.index("吃")] > 0.5


def test_the_grammar_links_every_piece() -> None:
    words = set(grammar.vocabulary())
    for pair in islice(grammar.sentences(5), 3000):
        assert pair.sure <= pair.links
        assert {source for source, _ in pair.links} == set(range(len(pair.source)))
        assert {target for _, target in pair.links} == set(range(len(pair.target)))
        assert words.issuperset(pair.source + pair.target)


@pytest.mark.parametrize("name", NAMES)
def test_training_again_writes_a_whole_folder(name: str, tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    state = torch.get_rng_state()
    folder = zoo.train(name, tmp_path / "new", steps=3, progress=lambda step, total, _: heard.append((step, total)))
    assert heard == [(1, 3), (2, 3), (3, 3)]
    assert torch.equal(state, torch.get_rng_state())
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert {path.name for path in folder.iterdir()} == set(training.FILES)
    loaded = zoo.load_model(folder)
    assert loaded.truth["accuracy"] < 0.5
    assert loaded.examples == zoo.load(name).examples
    first = (folder / "model.safetensors").read_bytes()
    zoo.train(name, folder, steps=3)
    assert (folder / "model.safetensors").read_bytes() == first


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    folder = shutil.copytree(MODELS / "induction", tmp_path / "kept")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(step: int, total: int, loss: float) -> None:
        if step == 2:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        zoo.train("induction", folder, steps=3, progress=fail)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_failed_renaming_brings_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(MODELS / "induction", tmp_path / "kept")
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise PermissionError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(PermissionError), training.replacing(folder) as new:
        (new / "half").touch()
    assert {path.name for path in folder.iterdir()} == set(training.FILES)


def test_training_refuses_to_replace_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ArgumentError, match=r"thesis\.tex"):
        zoo.train("induction", tmp_path, steps=1)
    with pytest.raises(ArgumentError, match="is a file"):
        zoo.train("induction", tmp_path / "thesis.tex", steps=1)
    with pytest.raises(UnknownNameError, match="induction, translator"):
        zoo.train("nothing", tmp_path / "new")
    with pytest.raises(ArgumentError, match="steps=0"):
        zoo.train("induction", tmp_path / "new", steps=0)


def test_an_unknown_embedded_name() -> None:
    with pytest.raises(UnknownNameError, match=r"'inductoin'.*induction, translator.*load_model"):
        zoo.load("inductoin")


@pytest.mark.parametrize("name", ["./no/such/folder", "/no/such/folder", "a/b/c"])
def test_a_missing_folder_does_not_ask_the_hub(name: str, no_network: None) -> None:
    with pytest.raises(UnknownNameError, match=r"induction, translator.*no local folder"):
        zoo.load_model(name)


def test_an_unreachable_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(socket.socket, "connect", unreachable)
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    with pytest.raises(UnknownNameError, match=r"induction, translator.*no local folder.*could not be reached"):
        zoo.load_model("nobody/nothing")


def with_config(folder: Path, **changes: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")
    return folder


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return shutil.copytree(MODELS / "induction", tmp_path / "model")


def test_a_folder_without_config(copied: Path) -> None:
    (copied / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        zoo.load_model(copied)
    (copied / "config.json").write_text("{", "utf-8")
    with pytest.raises(ModelError, match="no JSON"):
        zoo.load_model(copied)


def test_pickled_weights_are_refused(copied: Path) -> None:
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin.*Only safetensors.*save_pretrained"):
        zoo.load_model(copied)
    (copied / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match="no weights"):
        zoo.load_model(copied)


def test_pickled_weights_are_not_read_beside_other_safetensors(copied: Path) -> None:
    """An adapter's file makes the folder look safe; the weights of the model are pickled all the same."""
    torch.save(zoo.load("induction").model.state_dict(), copied / "pytorch_model.bin")
    (copied / "model.safetensors").rename(copied / "adapter.safetensors")
    with pytest.raises(ModelError, match=r"could not load.*model\.safetensors"):
        zoo.load_model(copied)


def test_damaged_weights_are_told(copied: Path) -> None:
    (copied / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="could not load"):
        zoo.load_model(copied)


@pytest.mark.parametrize("architecture", ["MyOwn", "pipeline"])
def test_remote_code_is_refused(copied: Path, architecture: str) -> None:
    (copied / "code.py").write_text("raise SystemExit('it ran')", "utf-8")
    with_config(copied, architectures=[architecture], model_type="my_own", auto_map={"AutoModel": "code.MyOwn"})
    with pytest.raises(ModelError, match=r"own code.*code\.MyOwn.*refused"):
        zoo.load_model(copied)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", [None, "text-generation"])
@pytest.mark.parametrize("part", ["tokenizer_config.json", "processor_config.json", "config.json"])
def test_code_in_the_folder_is_never_run(copied: Path, tmp_path: Path, part: str, task: str | None) -> None:
    """Every part of a model may bring code; the parts that transformers knows are loaded without it."""
    names = {
        "tokenizer_config.json": {"AutoTokenizer": [None, "evil.Evil"]},
        "processor_config.json": {"AutoProcessor": "evil.Evil"},
        "config.json": {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"},
    }
    (copied / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Evil: pass\n", "utf-8")
    path = copied / part
    found = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(found | {"auto_map": names[part]}), "utf-8")
    try:
        loaded = zoo.load_model(copied, task=task)
    except ModelError:
        assert part == "processor_config.json"
    else:
        assert type(loaded.model).__name__ == "GPT2LMHeadModel"
        assert type(loaded.processor).__module__.startswith("transformers.")
    assert not (tmp_path / "ran").exists()


def test_an_unknown_type(copied: Path) -> None:
    with_config(copied, architectures=["MyOwn"], model_type="my_own")
    with pytest.raises(ModelError, match=r"'my_own'.*does not know"):
        zoo.load_model(copied)


@pytest.mark.filterwarnings("ignore")
def test_an_unknown_architecture_falls_back_to_auto_model(copied: Path) -> None:
    loaded = zoo.load_model(with_config(copied, architectures=["MyOwn"]))
    assert type(loaded.model).__name__ == "GPT2Model"


def test_the_task_chooses_the_head(copied: Path) -> None:
    assert type(zoo.load_model(copied, task="text-generation").model).__name__ == "GPT2LMHeadModel"
    with pytest.raises(UnknownNameError, match="text-generation"):
        zoo.load_model(copied, task="telepathy")
    with pytest.raises(ModelError, match="cannot do"):
        zoo.load_model(copied, task="image-classification")


def test_a_folder_without_tokenizer(copied: Path) -> None:
    for path in copied.glob("tokenizer*"):
        path.unlink()
    assert zoo.load_model(copied).processor is None


def test_a_processor_that_wants_what_is_missing_leaves_the_tokenizer(copied: Path) -> None:
    """The processor of Qwen2-VL prepares videos with torchvision, which is not installed here."""
    parts = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor"}
    (copied / "preprocessor_config.json").write_text(json.dumps(parts))
    (copied / "video_preprocessor_config.json").write_text(
        json.dumps({"video_processor_type": "Qwen2VLVideoProcessor"})
    )
    with pytest.warns(UserWarning, match=r"only the tokenizer.*orchvision"):
        loaded = zoo.load_model(copied)
    assert loaded.processor("sun moon")["input_ids"] == zoo.load("induction").processor("sun moon")["input_ids"]


def test_the_embedded_name_wins_unless_a_path_is_written(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_config(copied.rename(copied.parent / "induction"), architectures=["GPT2Model"])
    monkeypatch.chdir(copied.parent)
    assert type(zoo.load_model("induction").model).__name__ == "GPT2LMHeadModel"
    assert type(zoo.load_model("./induction").model).__name__ == "GPT2Model"
    assert type(zoo.load_model(Path("induction")).model).__name__ == "GPT2Model"


def test_importing_the_zoo_is_light() -> None:
    heavy = ("torch", "transformers", "huggingface_hub")
    code = f"import sys, hf_attnviz.zoo; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
