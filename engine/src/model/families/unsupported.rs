//! Families that are known and not supported, with the reason: a file of theirs is refused from its header.

/// Reasons with the names that they apply to, separated by spaces.
const REASONS: &[(&str, &str)] = &[
    (
        "its mixture of experts is of a kind that this version does not know",
        "phimoe hy_v3 bailingmoe bailingmoe2 deepseek deepseek2-ocr llama4 dbrx arctic grok smallthinker grovemoe exaone-moe \
         afmoe mellum cohere2moe laguna mimo2 step35 maple nomic-bert-moe",
    ),
    ("it needs attention with compressed keys and values (latent attention)", "deepseek2 mistral4 plm minicpm3"),
    ("it needs attention to positions that an indexer chooses", "deepseek32 deepseek4 deepseek41 glm-dsa minimax-m3 hy_v4 dots3note"),
    ("its gated delta net layers carry a state along the text", "qwen35 qwen35moe qwen3next qwen4exp"),
    ("its convolution layers carry a state along the text", "lfm2 lfm2moe lfm3"),
    ("its Mamba layers carry a state along the text", "granitehybrid nemotron_h nemotron_h_moe falcon-h1 jamba mamba mamba2 plamo2"),
    ("its Kimi delta attention layers carry a state along the text", "kimi-linear kimi-k3 kimi-k31 bailingmoe3 glm5-next"),
    ("its lightning attention carries a state along the text", "minimax-01"),
    ("its RWKV layers carry a state along the text", "rwkv6 rwkv6qwen2 rwkv7 arwkv7"),
    ("it needs embeddings of each layer, and layers that share keys and values", "gemma3n gemma4"),
    ("it needs a bias of scores by distance (ALiBi)", "mpt bloom refact jais jina-bert-v2"),
    ("it fills masks in any order instead of continuing a text (diffusion)", "dream llada llada-moe rnd1"),
    ("it drafts tokens for another model and answers nothing by itself", "eagle3 dflash gemma4-assistant"),
    ("it is a part of a system that speaks", "qwen3tts pockettts wavtokenizer-dec"),
    ("it needs an encoder beside the decoder", "t5 t5encoder"),
    ("it needs attention to pictures in layers of its own", "mllama cogvlm"),
    ("it needs layers of different shapes", "deci openelm"),
    ("it needs gates on the output of attention", "muse-glimmer spark2_5"),
    ("it needs attention sinks", "granite_swa"),
    ("it needs a stack of layers that runs several times", "nanbeige"),
    ("it needs the embedding added behind each layer", "talkie"),
    ("its weights are of bitnet.cpp's own type", "bitnet-b1.58"),
    ("it is Ollama's early conversion of gpt-oss, with experts in an order of its own; pull the model again", "gptoss"),
];

/// The reason why the family `name` is not supported.
pub(super) fn reason(name: &str) -> &'static str {
    let found = REASONS.iter().find(|(_, names)| names.split(' ').any(|known| known == name));
    found.map_or("this version does not know it", |(reason, _)| reason)
}
