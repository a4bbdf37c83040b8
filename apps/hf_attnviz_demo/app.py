"""The web demo: choose a model, type a text, look at its attention. Serves this machine only.

Every answer is a self-contained page in a sandboxed frame; nothing is asked of the network.
"""

import html
import logging
import os
import socket
from contextlib import closing
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr

import hf_attnviz as av
from hf_attnviz_demo.service import TABS, Answer, Service
from hf_attnviz_demo.words import CHINESE, ENGLISH

ANALYSIS, PICTURE = "head_roles", "model_view"  # shown before others are chosen
METHODS = ["pearson", "spearman", "cosine", "js", "hellinger"]
CSS = """
.gradio-container {max-width: 1500px !important}
#title p {font-size: 1.4em; font-weight: 600}
#status p {margin: .2em 0}
footer {display: none !important}
"""

_log = logging.getLogger("hf_attnviz_demo")


def build(service: Service) -> tuple[gr.Blocks, gr.I18n]:
    """The page. Its events ``/attention`` and ``/examples`` are typed, so that ``gradio_client`` can call them too."""
    drawn = {one.function: one.title for one in av.pictures().values()}
    chinese = CHINESE | {name: title.zh for name, title in drawn.items()}
    words = gr.I18n(
        **{"en": ENGLISH | {name: title.en for name, title in drawn.items()}, "zh-CN": chinese, "zh": chinese}
    )
    first = service.models[0]
    with gr.Blocks(title="hf_attnviz", analytics_enabled=False, fill_width=True) as page:
        gr.Markdown(words("title"), elem_id="title")
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                model = gr.Dropdown(list(service.models), value=first, label=words("model"), elem_id="model")
                text = gr.Textbox(_first(service, first), label=words("text"), lines=3, elem_id="text", max_lines=12)
                examples = gr.Dropdown(service.examples(first), value=None, label=words("examples"), elem_id="examples")
                pair = gr.Textbox("", label=words("pair"), elem_id="pair")
                new = gr.Slider(1, 64, value=16, step=1, label=words("new"), elem_id="new")
                stack = gr.Dropdown([], value=None, label=words("stack"), elem_id="stack", allow_custom_value=True)
                method = gr.Dropdown(METHODS, value=METHODS[0], label=words("method"), elem_id="method")
                show = gr.Button(words("show"), variant="primary", elem_id="show")
            with gr.Column(scale=4, min_width=600):
                status = gr.HTML(words("empty"), elem_id="status")
                frames = []
                with gr.Tabs():
                    for name in TABS:
                        with gr.Tab(words(name), id=name, elem_id=f"tab-{name}"):
                            if name == "analysis":
                                names = list(av.analyses())
                                analysis = gr.Dropdown(names, value=ANALYSIS, label=words("which"), elem_id="analysis")
                            if name == "picture":
                                picture = gr.Dropdown(
                                    list(drawn), value=PICTURE, label=words("which_picture"), elem_id="picture"
                                )
                            frames.append(gr.HTML("", elem_id=f"frame-{name}"))
                    with gr.Tab(words("compare"), id="compare", elem_id="tab-compare"):
                        with gr.Row():
                            second = gr.Textbox("", label=words("second"), elem_id="second", scale=3)
                            word = gr.Textbox("", label=words("word"), elem_id="word", scale=2)
                        special = gr.Checkbox(False, label=words("special"), elem_id="special")
                        compare_now = gr.Button(words("compare_now"), variant="primary", elem_id="compare-now")
                        compared = gr.HTML("", elem_id="frame-compare")
                    with gr.Tab(words("trust"), id="trust", elem_id="tab-trust"):
                        target = gr.Textbox("", label=words("target"), info=words("trust_slow"), elem_id="target")
                        trust_now = gr.Button(words("trust_now"), variant="primary", elem_id="trust-now")
                        trusted = gr.HTML("", elem_id="frame-trust")

        def attention(
            model: str, text: str, pair: str, stack: str | None, method: str, new_tokens: float, analysis: str,
            picture: str, request: gr.Request,
        ) -> tuple[Any, ...]:  # fmt: skip
            """Capture the attention of one of the offered models on a text and draw it."""
            language = _language(request)
            try:
                answer = service.answer(
                    model, text, pair or "", stack or "", method, int(new_tokens), analysis, picture, language=language
                )
            except Exception as error:
                return _failed(error, language)
            return _shown(answer)

        def compare(
            model: str, text: str, second: str, word: str, stack: str | None, without_special: bool, request: gr.Request
        ) -> str:
            """Compare what one of the offered models does with two texts."""
            language = _language(request)
            try:
                return service.compare(model, text, second, word or "", stack or "", without_special, language=language)
            except Exception as error:
                return _alert(error, language)

        def trust(model: str, text: str, target: str, request: gr.Request) -> str:
            """Put rankings of the words of a text to the test: do they name what the prediction depends on?"""
            language = _language(request)
            try:
                return service.trust(model, text, target or "", language=language)
            except Exception as error:
                return _alert(error, language)

        def another(model: str) -> tuple[Any, ...]:
            """A model's examples; the first one is put into the text box."""
            found = service.examples(model)
            return found[0] if found else "", gr.Dropdown(found, value=None), gr.Dropdown([], value=None)

        inputs = [model, text, pair, stack, method, new, analysis, picture]
        outputs = [status, stack, *frames]
        shared: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
        show.click(attention, inputs, outputs, api_name="attention", **shared)
        text.submit(attention, inputs, outputs, api_name=False, **shared)
        # Gradio 6.31 sends a choice twice as input: the second answer would write over what is typed meanwhile.
        stack.select(attention, inputs, outputs, api_name=False, **shared)
        method.select(attention, inputs, outputs, api_name=False, **shared)
        analysis.select(attention, inputs, outputs, api_name=False, **shared)
        picture.select(attention, inputs, outputs, api_name=False, **shared)
        both = [model, text, second, word, stack, special]
        compare_now.click(compare, both, [compared], api_name="compare", **shared)
        second.submit(compare, both, [compared], api_name=False, **shared)
        word.submit(compare, both, [compared], api_name=False, **shared)
        trust_now.click(trust, [model, text, target], [trusted], api_name="trust", **shared)
        target.submit(trust, [model, text, target], [trusted], api_name=False, **shared)
        model.select(another, [model], [text, examples, stack], api_name="examples", **shared)
        examples.select(lambda chosen: chosen or "", [examples], [text], api_name=False)
    page.queue(max_size=16)
    return page, words


def serve(allow: tuple[str, ...] = (), port: int | None = None, *, block: bool = True) -> gr.Blocks:
    """Serve the demo on 127.0.0.1, at ``port``, else at ``GRADIO_SERVER_PORT``, else at 7860 or the next free one.

    Args:
        allow: further models that visitors may load: local folders or hub ids.
        port: the port.
        block: wait until the server is stopped.

    Raises:
        ArgumentError: the port is taken.
    """
    asked = port or os.environ.get("GRADIO_SERVER_PORT")
    if asked:
        _refuse_taken(int(asked))
    page, words = build(Service(allow))
    page.launch(
        server_name="127.0.0.1",
        server_port=port,
        share=False,
        i18n=words,
        css=CSS,
        footer_links=[],
        prevent_thread_lock=not block,
        quiet=not block,
    )
    return page


def _refuse_taken(port: int) -> None:
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was just left is free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise av.errors.ArgumentError(
                av.language.Text(
                    f"port {port} of this machine is taken, by an earlier demo perhaps ({error.strerror}); choose "
                    "another with --port or GRADIO_SERVER_PORT, or leave both out for the next free one",
                    f"本机的端口 {port} 已被占用，也许是先前启动的演示（{error.strerror}）；"
                    "请用 --port 或 GRADIO_SERVER_PORT 另选一个，或都不指定，自动使用下一个空闲端口",
                )
            ) from error


def _first(service: Service, model: str) -> str:
    examples = service.examples(model)
    return examples[0] if examples else ""


def _shown(answer: Answer) -> tuple[Any, ...]:
    stack = gr.Dropdown(list(answer.stacks), value=answer.stack)
    return (answer.status, stack, *(answer.tabs[name] for name in TABS))


def _failed(error: Exception, language: str) -> tuple[Any, ...]:
    return (_alert(error, language), gr.skip(), *([""] * len(TABS)))


def _alert(error: Exception, language: str) -> str:
    """What went wrong, in words for the visitor; what we did not foresee goes to the log."""
    with av.language.speaking(language):
        message = str(error)
    if not isinstance(error, av.errors.AttnvizError):
        _log.error("the demo could not answer", exc_info=error)
        message = _words(language)["unexpected"]
    return f'<p role="alert"><b>{html.escape(_words(language)["failed"])}</b> {html.escape(message)}</p>'


def _words(language: str) -> dict[str, str]:
    return CHINESE if language == "zh" else ENGLISH


def _language(request: gr.Request | None) -> str:
    asked = "" if request is None else request.headers.get("accept-language", "")
    return "zh" if asked.lower().startswith("zh") else "en"
