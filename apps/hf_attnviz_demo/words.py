"""What the demo says, in both languages; the browser's language chooses."""

from typing import Final

ENGLISH: Final = {
    "title": "hf_attnviz: what attention does inside a model",
    "model": "Model",
    "text": "Text",
    "examples": "Examples",
    "pair": "Second sentence (optional)",
    "new": "Tokens to generate at most",
    "stack": "Attention of",
    "show": "Show attention",
    "head": "Head view",
    "correlation": "Head correlation",
    "rollout": "Rollout",
    "evolution": "Evolution",
    "statistics": "Head statistics",
    "method": "Measure",
    "empty": "Choose a model, type a text, and press the button.",
    "self_only": "Rollout follows one sequence through its own layers; choose a self-attention stack.",
    "no_generation": "This model read the text and generated nothing, so there are no decoding steps to follow.",
    "proved": "{maps} maps, captured as the model ran; largest deviation from the kernel's own output {error}.",
    "said": "The model wrote:",
    "failed": "That did not work:",
    "unexpected": "Something unexpected went wrong; the server's log has the details. Try another text or model.",
}

CHINESE: Final = {
    "title": "hf_attnviz：看清模型内部的注意力",
    "model": "模型",
    "text": "文本",
    "examples": "示例",
    "pair": "第二句（可选）",
    "new": "最多生成的词元数",
    "stack": "查看哪一栈",
    "show": "显示注意力",
    "head": "头视图",
    "correlation": "注意力头相关性",
    "rollout": "Rollout",
    "evolution": "随步演变",
    "statistics": "注意力头统计",
    "method": "度量",
    "empty": "选择模型，输入文本，然后按下按钮。",
    "self_only": "Rollout 沿同一序列的各层追踪，请选择自注意力栈。",
    "no_generation": "该模型只读文本、没有生成，因此没有解码步可看。",
    "proved": "在模型原样运行时捕获 {maps} 张注意力图；与内核输出的最大偏差为 {error}。",
    "said": "模型写出：",
    "failed": "未能完成：",
    "unexpected": "发生了意外错误，详情见服务器日志。请换一段文本或一个模型。",
}

assert ENGLISH.keys() == CHINESE.keys()
