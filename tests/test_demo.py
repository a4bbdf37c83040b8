"""The web demo, in a real browser that reaches nothing but this machine, and through its typed interface."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio_client
import pytest
from hf_attnviz_demo.app import _alert, serve
from hf_attnviz_demo.service import LONGEST_TEXT, Service

import hf_attnviz as av
from hf_attnviz.zoo.loading import MODELS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio", "ignore::DeprecationWarning:websockets")


def free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    port = free_port()
    page = serve(port=port, block=False)
    yield f"http://127.0.0.1:{port}/"
    page.close()


@pytest.fixture
def demo(chromium: Any, address: str) -> Iterator[Any]:
    """Opens the demo; a request to anywhere else or a complaint of the page fails the test."""
    contexts, complaints = [], []

    def open_it(**options: Any) -> Any:
        context = chromium.new_context(**{"viewport": {"width": 1400, "height": 1000}} | options)
        contexts.append(context)

        def route(call: Any) -> None:
            if call.request.url.startswith((address, "data:", "blob:", "about:")):
                call.continue_()
            else:
                complaints.append(f"request: {call.request.url[:100]}")
                call.abort()

        context.route("**/*", route)
        page = context.new_page()
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        page.wait_for_selector("#show", timeout=30_000)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert not complaints, complaints


def choose(page: Any, box: str, option: str) -> None:
    page.locator(f"#{box} input").click()
    page.get_by_role("option", name=option, exact=True).click()


def write(page: Any, box: str, text: str) -> None:
    """Fill a box that may have been shown this very moment: Gradio then sets its value once more, some frames later."""
    area = page.locator(f"#{box} textarea")
    for _ in range(50):
        area.fill(text)
        page.wait_for_timeout(100)
        if area.input_value() == text:
            return
    raise AssertionError(f"#{box} does not keep what is written into it")


@pytest.mark.browser
def test_translate_and_look(demo: Any) -> None:
    page = demo(locale="en-US")
    choose(page, "model", "translator")
    page.wait_for_function("document.querySelector('#text textarea').value === '我爱吃北京烤鸭'")
    page.locator("#show").click()
    frame = page.frame_locator("#frame-head iframe")
    frame.locator("text=烤鸭").first.wait_for(timeout=30_000)
    assert frame.locator("text=Peking").count() >= 1
    assert "I love Peking duck" in page.locator("#status").inner_text()
    page.get_by_role("tab", name="Head correlation").click()
    page.frame_locator("#frame-correlation iframe").locator("text=L1H1").first.wait_for(timeout=30_000)
    choose(page, "stack", "decoder")
    page.get_by_role("tab", name="Rollout").click()
    page.frame_locator("#frame-rollout iframe").locator("canvas").first.wait_for(timeout=30_000)
    page.get_by_role("tab", name="Evolution").click()
    page.frame_locator("#frame-evolution iframe").locator("svg").first.wait_for(timeout=30_000)


@pytest.mark.browser
def test_it_speaks_chinese_to_a_chinese_browser(demo: Any) -> None:
    page = demo(locale="zh-CN", color_scheme="dark")
    page.get_by_role("button", name="显示注意力").click()
    page.frame_locator("#frame-head iframe").get_by_text("如何阅读").first.wait_for(timeout=30_000)
    assert "模型写出" in page.locator("#status").inner_text()


@pytest.mark.browser
def test_hostile_and_empty_texts_are_answered_in_words(demo: Any) -> None:
    page = demo(locale="en-US")
    text = page.locator("#text textarea")
    text.fill("")
    page.locator("#show").click()
    page.locator("#status [role=alert]").wait_for(timeout=30_000)
    assert "empty" in page.locator("#status").inner_text()
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    text.fill("</script><script>alert(1)</script> <img src=x onerror=alert(2)> sun moon sun")
    page.locator("#show").click()
    page.frame_locator("#frame-head iframe").locator("text=moon").first.wait_for(timeout=30_000)
    assert not dialogs


@pytest.mark.browser
def test_any_analysis_and_two_texts(demo: Any) -> None:
    page = demo(locale="zh-CN")
    page.locator("#show").click()
    page.get_by_role("tab", name="任选分析").click()
    page.frame_locator("#frame-analysis iframe").get_by_role("heading", name="角色").first.wait_for(timeout=30_000)
    choose(page, "analysis", "注意力头统计")
    page.frame_locator("#frame-analysis iframe").get_by_role("heading", name="注意力头统计").wait_for(timeout=30_000)
    page.get_by_role("tab", name="比较两段文本").click()
    write(page, "text", "sun moon star")
    write(page, "second", "moon star sun")
    write(page, "word", "moon")
    page.locator("#compare-now").click()
    frame = page.frame_locator("#frame-compare iframe")
    frame.get_by_role("heading", name="“moon”在两段文本中看向什么").wait_for(timeout=30_000)
    assert frame.locator("#bars tbody th").all_inner_texts() == ["<s>", "sun", "moon", "star"]
    write(page, "second", "star moon sun moon")  # twice: the first place is meant, as the label says
    page.locator("#compare-now").click()
    frame.get_by_text("star moon sun moon").first.wait_for(timeout=30_000)
    write(page, "word", "rain")
    page.locator("#compare-now").click()
    page.locator("#frame-compare [role=alert]").wait_for(timeout=30_000)
    assert "第一段文本中没有词 'rain'；它有：<s>, sun, moon, star" in page.locator("#frame-compare").inner_text()


def test_a_prediction_is_put_to_the_test(demo: Any) -> None:
    page = demo(locale="zh-CN")
    choose(page, "model", "induction")
    write(page, "text", "the cat sat on my red hat the cat sat on my red")
    page.get_by_role("tab", name="可信吗？").click()
    page.locator("#trust-now").click()
    frame = page.frame_locator("#frame-trust iframe")
    frame.get_by_text("“hat”").first.wait_for(timeout=60_000)
    assert frame.get_by_text("可信").count() >= 1
    write(page, "target", "elephant")
    page.locator("#trust-now").click()
    page.locator("#frame-trust [role=alert]").wait_for(timeout=60_000)
    assert "elephant" in page.locator("#frame-trust").inner_text()


def test_the_typed_interface(address: str) -> None:
    client = gradio_client.Client(address, verbose=False)
    status, stack, head, *_ = client.predict(
        "translator", "我爱吃北京烤鸭", "", None, "pearson", 8, "head_correlation", api_name="/attention"
    )
    compared = client.predict("induction", "sun moon", "moon sun", "", None, False, api_name="/compare")
    assert "Two traces, head by head" in compared
    assert "I love Peking duck" in status
    assert "烤鸭" in head
    assert stack["choices"] == [["encoder", "encoder"], ["decoder", "decoder"], ["cross", "cross"]]
    client.close()


@pytest.mark.timeout(600)
def test_a_text_of_four_thousand_tokens_is_answered(demo: Any) -> None:
    """Too long for maps: the page along the text shows where the one fruit stands, and what needs maps says so."""
    words = [("sun", "moon", "star", "rain", "snow", "wind", "fire")[n % 7] for n in range(4_095)]
    words[2_000] = "mango"
    page = demo(locale="en-US")
    choose(page, "model", "wordfinder")
    page.wait_for_function("document.querySelector('#text textarea').value.includes('plum')")
    write(page, "text", " ".join(words))
    page.locator("#show").click()
    frame = page.frame_locator("#frame-head iframe")
    frame.get_by_role("heading", name="wordfinder along 4,").wait_for(timeout=500_000)
    assert "4,1" in page.locator("#status").inner_text() and "too many" in page.locator("#status").inner_text()
    assert "mango" in page.locator("#status").inner_text()  # what the model wrote
    frame.locator("#heads button").nth(2).click()
    assert "mango" in frame.locator("#most mark").all_inner_texts()[:2]
    assert "2,001" in frame.locator("#most button").all_inner_texts()[:2]
    assert frame.locator("#flow").count() == 1
    for tab in ("correlation", "statistics"):
        page.get_by_role("tab", name=f"Head {tab}").click()
        page.frame_locator(f"#frame-{tab} iframe").locator("canvas").first.wait_for(timeout=30_000)
    page.get_by_role("tab", name="Any analysis").click()
    assert "needs whole maps" in page.locator("#frame-analysis").inner_text()
    page.get_by_role("tab", name="Rollout").click()
    assert "stands in the first tab" in page.locator("#frame-rollout").inner_text()


HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def hostile(tmp_path: Path) -> str:
    """A folder with a translator whose word for Peking is markup."""
    folder = shutil.copytree(MODELS / "translator", tmp_path / HOSTILE)
    path = folder / "tokenizer.json"
    parts = json.loads(path.read_text("utf-8"))
    words = parts["model"]["vocab"]
    words[HOSTILE] = words.pop("Peking")
    path.write_text(json.dumps(parts), "utf-8")
    return str(folder)


@pytest.mark.browser
def test_markup_in_an_error_and_in_what_the_model_wrote_is_text(hostile: str, chromium: Any) -> None:
    port = free_port()
    page = serve((hostile, HOSTILE), port=port, block=False)
    client = gradio_client.Client(f"http://127.0.0.1:{port}/", verbose=False)
    try:
        asked = ("我爱吃北京烤鸭", "", None, "pearson", 8, "rollout")
        failed, *_ = client.predict(HOSTILE, *asked, api_name="/attention")
        said, *_ = client.predict(hostile, *asked, api_name="/attention")
    finally:
        client.close()
        page.close()
    with closing(chromium.new_context(offline=True)) as context:
        tab = context.new_page()
        for html, words in (
            (failed, f"{HOSTILE!r} is no embedded model"),
            (said, f"The model wrote: I love {HOSTILE} duck"),
        ):
            tab.set_content(html)
            assert words in tab.inner_text("body")
            assert tab.locator("img, script, [onerror]").count() == 0


@pytest.mark.parametrize("name", list(av.pictures()))
def test_every_picture_is_drawn_or_told_of(name: str) -> None:
    """By the translator, which has all stacks; with what the picture needs kept, whatever the other tabs need."""
    chosen, service, text = av.pictures()[name], Service(), "我爱吃北京烤鸭"
    stacks = ("cross", "decoder")  # a picture of paths through the layers has none through cross-attention, and says so
    found = [service.answer("translator", text, stack=one, picture=chosen.function).tabs["picture"] for one in stacks]
    trace = av.trace_text(av.load_model("translator"), text, keep=list(chosen.keep))
    assert all(one.startswith(("<iframe", "<p>")) for one in found)
    assert any(one.startswith("<iframe") for one in found) == chosen.suits(trace)


@pytest.mark.browser
def test_any_picture(demo: Any) -> None:
    page = demo(locale="zh-CN")
    page.get_by_role("tab", name="任选图").click()
    page.locator("#show").click()
    page.frame_locator("#frame-picture iframe").get_by_role("heading", name="所有层与头").wait_for(timeout=30_000)
    choose(page, "picture", av.pictures()["neuron"].title.zh)
    page.frame_locator("#frame-picture iframe").get_by_role("heading", name="查询与键").wait_for(timeout=30_000)


def test_only_what_the_operator_allows() -> None:
    service = Service()
    with pytest.raises(av.errors.UnknownNameError, match="--allow"):
        service.answer("/etc", "sun")
    with pytest.raises(av.errors.ArgumentError, match="command line"):
        service.answer("induction", "sun " * LONGEST_TEXT)
    with pytest.raises(av.errors.ArgumentError, match=r"16,001 tokens, this model reads at most 64"):
        service.answer("induction", "sun " * 16_000)
    for ask in (
        lambda text: service.trust("wordfinder", text),
        lambda text: service.compare("wordfinder", "sun", text),
    ):
        with pytest.raises(av.errors.ArgumentError, match="4,000 here.*command line"):
            ask("sun " * 1_001)
    with pytest.raises(av.errors.UnknownNameError, match="unknown analysis 'mind reading'; known: .*rollout"):
        service.answer("induction", "sun moon sun", analysis="mind reading")
    answer = service.answer("induction", "sun moon sun", analysis="norms")
    assert answer.stack == "decoder"
    assert "<iframe" in answer.tabs["analysis"]
    assert "several" not in answer.tabs["analysis"]
    why = service.answer("induction", "sun moon sun", analysis="word_times").tabs
    assert "no stack &#x27;cross&#x27;" in why["analysis"] or "cross-attention" in why["analysis"]
    assert "<iframe" in why["statistics"]
    assert Service(("some/model",)).models == ("induction", "translator", "wordfinder", "some/model")


@pytest.mark.parametrize(
    ("language", "said"), [("zh", "文本有 400,001 个字符"), ("en", "the text has 400,001 characters")]
)
def test_an_error_is_told_in_the_visitor_s_language(language: str, said: str) -> None:
    """Whatever the language of the machine that serves."""
    av.set_language("en" if language == "zh" else "zh")
    with pytest.raises(av.errors.ArgumentError) as refused:
        Service().answer("induction", "x" * (LONGEST_TEXT + 1), language=language)
    assert said in _alert(refused.value, language)
    with pytest.raises(av.errors.UnknownNameError) as refused:
        Service().compare("induction", "one two", "one three", "four", language=language)
    assert ("没有词" if language == "zh" else "has no word") in _alert(refused.value, language)


def test_the_command_serves_this_machine_only_at_the_port_of_the_environment() -> None:
    port = free_port()
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port), "LANG": "C.UTF-8"}
    server = subprocess.Popen([sys.executable, "-m", "hf_attnviz", "demo"], env=environment, stdout=subprocess.DEVNULL)
    try:
        assert listens("127.0.0.1", port, seconds=90)
        assert listening_addresses(port) == {"127.0.0.1"}
    finally:
        server.terminate()
        server.wait(timeout=20)


def test_a_port_that_is_taken_is_told_in_words() -> None:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(av.errors.ArgumentError, match=rf"port {port} of this machine is taken.*--port"):
            serve(port=port, block=False)


def listens(host: str, port: int, *, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while True:
        try:
            with closing(socket.create_connection((host, port), timeout=2)):
                return True
        except OSError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.5)


def listening_addresses(port: int) -> set[str]:
    """Every address at which something on this machine listens at the port, by the kernel's own tables."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, number = local.split(":")
            if state == "0A" and int(number, 16) == port:
                loopback = address == "0100007F"
                found.add("127.0.0.1" if loopback else address)
    return found
