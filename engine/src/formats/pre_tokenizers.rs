//! The table of `tokenizer.ggml.pre`: how text is cut into words before byte-pair merging.

/// One family of pre-tokenizers.
#[derive(Debug)]
pub(crate) struct PreTokenizer {
    /// The values of `tokenizer.ggml.pre` that mean it.
    names: &'static [&'static str],
    /// Cuts applied one after the other, each to the words that the last one left.
    pub(crate) cuts: &'static [Cut],
    /// A word that is a token is taken whole, whatever the merges say.
    pub(crate) ignore_merges: bool,
    /// Whether BOS is added when the file does not say.
    pub(crate) add_bos: bool,
    /// Whether text is brought into Unicode's composed form (NFC) first.
    pub(crate) nfc: bool,
}

/// A cut at the matches of a regular expression: each match becomes a word, and so does each text between two of them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cut {
    /// The expression as it is.
    At(&'static str),
    /// The expression followed by `|\s+(?!\S)|\s+`, which gives the last space of several to the next word. The expressions here are
    /// matched without backtracking, in linear time, so this is not written as a lookahead but done where text is cut.
    Words(&'static str),
}

const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+";
const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+";
const SEED_CODER: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+";
const QWEN_3_5: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+";
const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+";
const GPT_4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+";
const DEEPSEEK_3: &str =
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+"##;
/// Letters of scripts with cases (Latin, Greek, Cyrillic, Armenian, Georgian, Cherokee and more).
const DEEPSEEK_LETTERS: &str = r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\x{1F7D}ᾀ-ᾴᾶ-ᾼ\x{1FBE}ῂ-ῄῆ-ῌῐ-\x{1FD3}ῖ-\x{1FDB}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\x{2126}ℨ\x{212A}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";

/// What most families do.
const PLAIN: PreTokenizer = PreTokenizer { names: &[], cuts: &[], ignore_merges: false, add_bos: false, nfc: false };

/// Patterns and normalization are those of the models' own `tokenizer.json`; names are those llama.cpp's converter writes.
const TABLE: &[PreTokenizer] = &[
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        cuts: &[Cut::Words(LLAMA_3)],
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    PreTokenizer { names: &["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], cuts: &[Cut::Words(LLAMA_3)], ..PLAIN },
    PreTokenizer { names: &["qwen2", "megrez", "kormo", "f2llmv2", "stablelm2"], cuts: &[Cut::Words(QWEN_2)], nfc: true, ..PLAIN },
    PreTokenizer { names: &["deepseek-r1-qwen", "hunyuan", "grok-2"], cuts: &[Cut::Words(QWEN_2)], ..PLAIN },
    PreTokenizer { names: &["seed-coder"], cuts: &[Cut::Words(SEED_CODER)], ..PLAIN },
    PreTokenizer { names: &["qwen35"], cuts: &[Cut::Words(QWEN_3_5)], nfc: true, ..PLAIN },
    PreTokenizer {
        names: &["smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2"],
        cuts: &[Cut::At(r"\p{N}"), Cut::Words(GPT_2)],
        ..PLAIN
    },
    PreTokenizer { names: &["command-r"], cuts: &[Cut::At(r"\p{N}"), Cut::Words(GPT_2)], nfc: true, ..PLAIN },
    PreTokenizer {
        names: &["gpt-2", "phi-2", "jais", "gigachat", "exaone4", "mellum", "a.x-4.0", "trillion", "granite-docling"],
        cuts: &[Cut::Words(GPT_2)],
        ..PLAIN
    },
    PreTokenizer { names: &["olmo", "mpt"], cuts: &[Cut::Words(GPT_2)], nfc: true, ..PLAIN },
    PreTokenizer { names: &["gpt-4o", "llama4", "kanana2"], cuts: &[Cut::Words(GPT_4O)], ..PLAIN },
    PreTokenizer { names: &["tekken"], cuts: &[Cut::Words(TEKKEN)], ignore_merges: true, add_bos: true, ..PLAIN },
    PreTokenizer {
        names: &["deepseek-llm"],
        cuts: &[
            Cut::At(r"[\r\n]"),
            Cut::At(DEEPSEEK_LETTERS),
            Cut::At(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
            Cut::At(r"\s+$"),
            Cut::At("[一-龥ࠀ-一가-퟿]+"),
            Cut::At(r"\p{N}+"),
        ],
        ..PLAIN
    },
    PreTokenizer {
        names: &["deepseek-coder"],
        cuts: &[Cut::At(r"[\r\n]"), Cut::At(r"\s?\p{L}+"), Cut::At(r"\s?\p{P}+"), Cut::At("[一-龥ࠀ-一가-퟿]+"), Cut::At(r"\p{N}")],
        ..PLAIN
    },
    PreTokenizer {
        names: &["deepseek-v3", "hunyuan-dense"],
        cuts: &[Cut::At(r"\p{N}{1,3}"), Cut::At("[一-龥぀-ゟ゠-ヿ]+"), Cut::Words(DEEPSEEK_3)],
        ..PLAIN
    },
    PreTokenizer { names: &["falcon"], cuts: &[Cut::At(r"[\p{P}\$\+<=>\^~\|`]+"), Cut::Words(GPT_2), Cut::At("[0-9][0-9][0-9]")], ..PLAIN },
    PreTokenizer {
        names: &["default"],
        cuts: &[Cut::At(r"[\p{P}\$\+<=>\^~\|]+"), Cut::Words(GPT_2), Cut::At(r"\p{N}+"), Cut::At("[0-9][0-9][0-9]")],
        ..PLAIN
    },
];

/// The rules that a value of `tokenizer.ggml.pre` names.
pub(crate) fn find(name: &str) -> Option<&'static PreTokenizer> {
    TABLE.iter().find(|p| p.names.contains(&name))
}

/// All values of `tokenizer.ggml.pre` that [`find`] knows.
pub(crate) fn names() -> Vec<&'static str> {
    TABLE.iter().flat_map(|p| p.names).copied().collect()
}

/// The name of the rules with these patterns, for tokenizers that come with patterns instead of a name.
pub(crate) fn recognise(patterns: &[String], ignore_merges: bool, nfc: bool) -> Option<&'static str> {
    let equal = |cut: &Cut, pattern: &String| match cut {
        Cut::At(cut) => cut == pattern,
        Cut::Words(cut) => pattern.strip_prefix(cut) == Some(r"|\s+(?!\S)|\s+"),
    };
    let found = TABLE.iter().find(|p| {
        (p.ignore_merges, p.nfc, p.cuts.len()) == (ignore_merges, nfc, patterns.len())
            && p.cuts.iter().zip(patterns).all(|(cut, pattern)| equal(cut, pattern))
    });
    found.and_then(|p| p.names.first().copied())
}
