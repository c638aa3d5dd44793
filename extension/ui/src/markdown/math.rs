//! Formulas in Markdown: where they are, and what they look like as `MathML`.
//!
//! Markdown would take the backslashes off `\(a\)` and the underscores for emphasis, so formulas are found before it is read. Each is
//! replaced by a mark of the same length, which Markdown takes for a word; [`Formulas::pieces`] says what stands at a mark.
//!
//! A formula becomes a tree of tags and attributes whose names are in this file: nothing of it is parsed as HTML.

use std::borrow::Cow;
use std::ops::Range;

use pulldown_latex::config::{DisplayMode, RenderConfig};
use pulldown_latex::{Parser, Storage, push_mathml};

/// Bytes of the longest formula between brackets; a longer one is text.
const LONGEST: usize = 4096;
/// Bytes of the longest formula between single dollar signs, which are mostly prices.
pub(super) const LONGEST_BETWEEN_DOLLARS: usize = 256;
/// Groups in groups; a formula with more is shown as its source.
const MAX_DEPTH: usize = 48;
/// The beginning of a mark. Characters of formulas follow as [`FILLER`].
const MARK: u8 = 1;
/// The rest of a mark.
const FILLER: u8 = b'x';
/// The bracket above, which stands for a box: that is what models write, and the parser lacks it.
const BRACKET: &str = "\u{23b4}";
/// Commands that define others, and those that the parser stumbles over.
const REFUSED: [&str; 6] = [r"\char", r"\def", r"\let", r"\newcommand", r"\renewcommand", r"\providecommand"];

/// Elements of `MathML` that a formula may have.
const TAGS: &str = "math merror mfrac mi mn mo mover mpadded mphantom mroot mrow mspace msqrt \
    mstyle msub msubsup msup mtable mtd mtext mtr munder munderover";
/// Attributes that they may have.
const ATTRIBUTES: &str = "class depth display displaystyle height largeop linethickness mathvariant maxsize \
    minsize movablelimits scriptlevel stretchy symmetric width";

/// A formula.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Formula {
    /// As it was written, without what delimits it.
    pub latex: String,
    /// Whether it has lines of its own.
    pub display: bool,
    /// How it looks; `None`: as its source, because it is no LaTeX that is known here.
    pub markup: Option<Tag>,
}

/// An element of `MathML`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// One of a fixed list.
    pub name: &'static str,
    /// Names are of a fixed list.
    pub attributes: Vec<(&'static str, String)>,
    /// What it contains.
    pub children: Vec<Markup>,
}

/// A child of a [`Tag`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Markup {
    /// Characters, shown as they are.
    Text(String),
    /// An element.
    Tag(Tag),
}

/// What stands at a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// A formula: the range of its LaTeX, and whether it has lines of its own.
    Formula { latex: Range<usize>, display: bool },
    /// The beginning of a formula that has no end (yet): shown as it was written.
    Open,
}

/// The formulas of a source.
#[derive(Debug, Default)]
pub(super) struct Formulas {
    /// In the order of the source.
    found: Vec<(Range<usize>, Found)>,
}

/// What stands in a piece of text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    Formula(Formula),
}

/// Whether `source` may contain formulas.
pub(super) fn possible(source: &str) -> bool {
    source.contains(r"\(") || source.contains(r"\[") || source.contains('$')
}

impl Formulas {
    /// Finds the formulas outside of the ranges `code`, which are in the order of `source`.
    pub(super) fn find(source: &str, code: &[Range<usize>]) -> Self {
        let mut found = Vec::new();
        let mut at = 0;
        let inside = |range: &&Range<usize>| range.start < source.len();
        let mut code = code.iter().take_while(inside).map(|range| range.start..range.end.min(source.len())).peekable();
        while let Some(offset) = source[at..].find(['\\', '$']) {
            at += offset;
            while code.next_if(|range| range.end <= at).is_some() {}
            if let Some(range) = code.peek().filter(|range| range.start <= at) {
                at = range.end;
                continue;
            }
            let end = code.peek().map_or(source.len(), |range| range.start);
            let (range, formula) = formula_at(source, at, end);
            if let Some(formula) = formula {
                found.push((range.clone(), formula));
            }
            at = range.end;
        }
        Self { found }
    }

    /// `source` with marks for formulas.
    pub(super) fn mark<'a>(&self, source: &'a str) -> Cow<'a, str> {
        if self.found.is_empty() {
            return Cow::Borrowed(source);
        }
        let mut marked = String::with_capacity(source.len());
        for (range, _) in &self.found {
            marked.push_str(&source[marked.len()..range.start]);
            marked.push(char::from(MARK));
            marked.extend(std::iter::repeat_n(char::from(FILLER), range.len() - 1));
        }
        marked.push_str(&source[marked.len()..]);
        Cow::Owned(marked)
    }

    /// The text at `range` of `source`, with its formulas.
    pub(super) fn pieces<'a>(&self, source: &'a str, range: Range<usize>) -> Vec<Piece<'a>> {
        let first = self.found.partition_point(|(found, _)| found.start < range.start);
        let mut pieces = Vec::new();
        let mut at = range.start;
        for (found, what) in self.found[first..].iter().take_while(|(found, _)| found.end <= range.end) {
            let Found::Formula { latex, display } = what else { continue };
            if at < found.start {
                pieces.push(Piece::Text(&source[at..found.start]));
            }
            pieces.push(Piece::Formula(Formula::new(&source[latex.clone()], *display)));
            at = found.end;
        }
        if at < range.end {
            pieces.push(Piece::Text(&source[at..range.end]));
        }
        pieces
    }
}

/// Where a formula begins that has no end yet and may still get one.
pub(super) fn open(source: &str) -> Option<usize> {
    let block = source.rfind("\n\n").map_or(0, |blank| blank + 2);
    let rest = &source[block..];
    let bracket = |open: &str, close: &str| rest.rfind(open).filter(|at| !rest[*at..].contains(close));
    let dollars = rest.rfind("$$").filter(|_| rest.matches("$$").count() % 2 == 1);
    let first = [bracket(r"\[", r"\]"), bracket(r"\(", r"\)"), dollars].into_iter().flatten().min()?;
    (rest.len() - first <= LONGEST).then_some(block + first)
}

/// What a backslash or dollar sign at `at` begins, not going beyond `end`, and the range that is dealt with.
fn formula_at(source: &str, at: usize, end: usize) -> (Range<usize>, Option<Found>) {
    let rest = &source[at..end];
    let between = |open: usize, close: &str, longest: usize, display: bool| {
        let length = close_of(&rest[open..], close, longest)?;
        let latex = at + open..at + open + length;
        (!source[latex.clone()].trim().is_empty()).then(|| (at..latex.end + close.len(), Some(Found::Formula { latex, display })))
    };
    let skip = |bytes: usize| (at..at + bytes, None);
    for (open, close) in [(r"\(", r"\)"), (r"\[", r"\]")] {
        if rest.starts_with(open) {
            return between(2, close, LONGEST, open == r"\[").unwrap_or((at..at + 2, Some(Found::Open)));
        }
    }
    if let Some(escaped) = rest.strip_prefix('\\') {
        // An escaped character begins nothing.
        return skip(1 + escaped.chars().next().map_or(0, char::len_utf8));
    }
    if rest.starts_with("$$") {
        // Three and more are no mark, and words alone no formula: both are classes of prices.
        let run = rest.len() - rest.trim_start_matches('$').len();
        if run > 2 {
            return skip(run);
        }
        let formula = between(2, "$$", LONGEST, true);
        let formula = formula.filter(|(range, _)| !source[range.end..].starts_with('$') && !is_words(&source[at + 2..range.end - 2]));
        return formula.unwrap_or(skip(2));
    }
    let after = source[..at].chars().next_back();
    if after.is_some_and(char::is_alphanumeric) || rest[1..].starts_with(char::is_whitespace) {
        return skip(1);
    }
    let dollars = between(1, "$", LONGEST_BETWEEN_DOLLARS, false);
    match dollars {
        Some((range, formula)) if !is_money(&source[at + 1..range.end - 1], source[range.end..].chars().next()) => (range, formula),
        _ => skip(1),
    }
}

/// Bytes before the first `close` that no backslash escapes, in the same block; single dollar signs in the same line.
fn close_of(text: &str, close: &str, longest: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut blank = false;
    while at < bytes.len().min(longest) {
        match bytes[at] {
            _ if bytes[at..].starts_with(close.as_bytes()) => return Some(at),
            b'\\' => {
                at += 2;
                blank = false;
                continue;
            }
            b'\n' if blank || close == "$" => return None,
            b'\n' => blank = true,
            byte if !byte.is_ascii_whitespace() => blank = false,
            _ => {}
        }
        at += 1;
    }
    None
}

/// Whether what is between two dollar signs, and the character behind them, are rather amounts of money.
fn is_money(between: &str, behind: Option<char>) -> bool {
    let words = between.contains(' ') && !between.contains(['\\', '^', '_', '=', '+', '{', '<', '>']);
    between.ends_with(char::is_whitespace)
        || behind.is_some_and(char::is_alphanumeric)
        || (words && between.starts_with(|first: char| first.is_ascii_digit()))
        || (words && between.split(' ').filter(|word| word.len() > 2 && word.chars().all(char::is_alphabetic)).count() > 1)
}

/// Whether there are words and nothing of a formula.
fn is_words(between: &str) -> bool {
    let words = between.split_whitespace().filter(|word| word.len() > 2 && word.chars().all(char::is_alphabetic));
    !between.contains(['\\', '^', '_', '=', '+', '{', '<', '>']) && words.count() > 1
}

impl Formula {
    fn new(latex: &str, display: bool) -> Self {
        Self { latex: latex.trim().to_owned(), display, markup: markup(latex, display) }
    }
}

/// `MathML` of a formula, if all of it is known.
fn markup(latex: &str, display: bool) -> Option<Tag> {
    // The parser takes any white space for one byte.
    let latex = known(latex).replace(|character: char| character.is_whitespace() && !character.is_ascii(), " ");
    // The parser cuts non-ASCII arguments of these, and colors, in the middle of a character.
    let cut = ["alignat", "alignedat", "#"].iter().any(|part| latex.contains(part)) && !latex.is_ascii();
    let refused = cut || REFUSED.iter().any(|command| latex.contains(command));
    if refused || depth(&latex) > MAX_DEPTH {
        return None;
    }
    let storage = Storage::new();
    let events = Parser::new(&latex, &storage).collect::<Result<Vec<_>, _>>().ok()?;
    let mut mathml = String::new();
    let display_mode = if display { DisplayMode::Block } else { DisplayMode::Inline };
    let config = RenderConfig { display_mode, ..RenderConfig::default() };
    push_mathml(&mut mathml, events.into_iter().map(Ok::<_, std::fmt::Error>), config).ok()?;
    read(&mathml)
}

/// `latex` with commands that the parser lacks in words that it has.
fn known(latex: &str) -> Cow<'_, str> {
    if ![r"\boxed", r"\tag", r"\label", r"\nonumber", r"\notag"].iter().any(|command| latex.contains(command)) {
        return Cow::Borrowed(latex.trim());
    }
    // What the reader makes a box of.
    let mut rest = latex.trim().replace(r"\boxed", r"\overbracket").replace(r"\nonumber", "").replace(r"\notag", "");
    for (command, before, after) in [(r"\tag{", r"\qquad(", ")"), (r"\label{", "", "")] {
        while let Some(start) = rest.find(command) {
            let argument = start + command.len();
            let Some(length) = rest[argument..].find('}') else { break };
            let shown = if before.is_empty() { String::new() } else { format!("{before}{}{after}", &rest[argument..argument + length]) };
            rest.replace_range(start..=argument + length, &shown);
        }
    }
    Cow::Owned(rest)
}

/// How deep groups are nested.
fn depth(latex: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let opens = latex.matches(r"\left").count() + latex.matches(r"\begin").count();
    for byte in latex.bytes() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest + opens
}

/// Reads what the renderer wrote; `None` if there is an element that is not in [`TAGS`]. The renderer does not escape every `<`.
fn read(mathml: &str) -> Option<Tag> {
    let mut open: Vec<Tag> = Vec::new();
    let mut rest = mathml;
    loop {
        let text = rest.find('<').unwrap_or(rest.len());
        push_text(open.last_mut(), &rest[..text]);
        rest = rest[text..].strip_prefix('<')?;
        if let Some(end) = rest.strip_prefix("/m") {
            rest = &end[end.find('>')? + 1..];
            let closed = boxed(open.pop()?);
            match open.last_mut() {
                Some(parent) => parent.children.push(Markup::Tag(closed)),
                None => return Some(closed),
            }
        } else if rest.starts_with('m') {
            let end = rest.find('>')?;
            let inside = rest[..end].strip_suffix('/');
            let tag = read_tag(inside.unwrap_or(&rest[..end]))?;
            rest = &rest[end + 1..];
            match open.last_mut() {
                Some(parent) if inside.is_some() => parent.children.push(Markup::Tag(tag)),
                _ => open.push(tag),
            }
        } else {
            push_text(open.last_mut(), "<");
        }
    }
}

/// A box instead of a bracket above.
fn boxed(mut tag: Tag) -> Tag {
    let is_bracket = |child: &Markup| matches!(child, Markup::Tag(Tag { children, .. }) if *children == [Markup::Text(BRACKET.to_owned())]);
    if tag.name == "mover" && tag.children.len() == 2 && tag.children.last().is_some_and(is_bracket) {
        tag.children.pop();
        tag.name = "mrow";
        tag.attributes = vec![("class", "boxed".to_owned())];
    }
    tag
}

/// Reads what is between `<` and `>`. Attributes that are not in [`ATTRIBUTES`] are left out.
fn read_tag(inside: &str) -> Option<Tag> {
    let (name, mut rest) = inside.split_once(' ').unwrap_or((inside, ""));
    let name = TAGS.split(' ').find(|tag| *tag == name)?;
    let mut attributes = Vec::new();
    while let Some((attribute, value)) = rest.split_once("=\"") {
        let (value, after) = value.split_once('"')?;
        rest = after;
        if let Some(known) = ATTRIBUTES.split(' ').find(|known| *known == attribute.trim()) {
            attributes.push((known, value.to_owned()));
        }
    }
    Some(Tag { name, attributes, children: Vec::new() })
}

fn push_text(parent: Option<&mut Tag>, text: &str) {
    let Some(parent) = parent.filter(|_| !text.is_empty()) else { return };
    let text = text.replace("&nbsp;", "\u{a0}").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    if let Some(Markup::Text(before)) = parent.children.last_mut() {
        before.push_str(&text);
    } else {
        parent.children.push(Markup::Text(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::markdown::{Kind, Node, parse};

    /// The formulas of a source as `inline` or `[display]`.
    fn formulas(source: &str) -> Vec<String> {
        fn collect(nodes: &[Node], all: &mut Vec<String>) {
            for node in nodes {
                match node {
                    Node::Math(Formula { latex, display: true, .. }) => all.push(format!("[{latex}]")),
                    Node::Math(formula) => all.push(formula.latex.clone()),
                    Node::Element(_, children) => collect(children, all),
                    _ => {}
                }
            }
        }
        let mut all = Vec::new();
        collect(&parse(source), &mut all);
        all
    }

    /// A formula as XML without attributes.
    fn xml(latex: &str) -> String {
        fn write(tag: &Tag, out: &mut String) {
            out.extend(["<", tag.name, ">"]);
            for child in &tag.children {
                match child {
                    Markup::Text(text) => out.push_str(text),
                    Markup::Tag(tag) => write(tag, out),
                }
            }
            out.extend(["</", tag.name, ">"]);
        }
        let mut out = String::new();
        if let Some(tag) = markup(latex, false) {
            write(&tag, &mut out);
        }
        out
    }

    #[test]
    fn math_formulas_are_found_before_markdown() {
        for (source, found) in [
            (r"so \(a_1*b*c_2\), and", &["a_1*b*c_2"][..]),
            ("\\[\n\\frac{a}{b}\\,\n- c\n\\]", &["[\\frac{a}{b}\\,\n- c]"]),
            ("$$x^2$$ and $y$", &["[x^2]", "y"]),
            (r"**bold \(x\)** and $a_i$ and $b_i$", &["x", "a_i", "b_i"]),
            ("- a\n  \\[ x \\]\n- b", &["[x]"]),
            (r"| \(|x|\) | $|y|$ |", &["|x|", "|y|"]),
            (r"\(a \\ b\)", &[r"a \\ b"]),
            ("$2$ and $5x$", &["2", "5x"]),
            ("$100 = 80 + 20$", &["100 = 80 + 20"]),
        ] {
            assert_eq!(formulas(source), found, "{source}");
        }
        let table = parse("| a | b |\n| - | - |\n| $|x|$ | \\(y|z\\) |");
        assert!(matches!(&table[..], [Node::Element(Kind::Table, rows)] if rows.len() == 2));
    }

    #[test]
    fn math_prices_and_code_stay_text() {
        for source in [
            "It costs $5 and $10.",
            "from $5 to US$10",
            "$5-$10",
            "$5/month or 10$/month",
            "between $1,000 and 2,000$ a year",
            "US$ 5 and $ 6",
            "$HOME and $PATH are set",
            "a$b$c",
            r"\$x\$",
            r"\\(x\\)",
            r"`\(x\)` and `$y$`",
            "```\n\\(x\\) $y$\n```",
            "```\n\\[ never closed",
            "    $x$",
            "$x\n\ny$",
            "\\(x\n\ny\\)",
            "\\( \\)",
            "- **Joe's** ($$): good burgers\n- **Chez X** ($$): fine",
            "Price: $$-$$$",
        ] {
            assert_eq!(formulas(source), [""; 0], "{source}");
        }
    }

    #[test]
    fn math_unfinished_formula_keeps_backslash() {
        assert_eq!(parse(r"so \(a_1"), [Node::Element(Kind::Paragraph, vec![Node::Text(r"so \(a_1".to_owned())])]);
        assert_eq!(parse("\\[\nx"), parse("\\\\[\nx"));
    }

    #[test]
    fn math_latex_becomes_mathml() {
        assert_eq!(xml(r"\frac{a}{b}"), "<math><mfrac><mrow><mi>a</mi></mrow><mrow><mi>b</mi></mrow></mfrac></math>");
        assert_eq!(xml(r"a\,b"), "<math><mi>a</mi><mspace></mspace><mi>b</mi></math>");
        assert_eq!(xml("a<b"), "<math><mi>a</mi><mo><</mo><mi>b</mi></math>");
        assert_eq!(xml(r"\text{if }x"), "<math><mtext>if\u{a0}</mtext><mi>x</mi></math>");
        assert_eq!(xml(r"x \label{eq} \tag{1}"), xml(r"x \qquad(1)"));
        assert!(xml(r"\boxed{42}").contains("<mn>42</mn>"));
        assert!(format!("{:?}", markup(r"\boxed{42}", false)).contains("boxed"));
        for unknown in [r"\nosuchthing{x}", r"\frac", "{", r"\end{align}", r"\char65", r"\def\a{b}\a"] {
            assert_eq!(markup(unknown, false), None, "{unknown}");
        }
    }

    #[test]
    fn math_markup_is_inert_and_bounded() {
        for latex in [
            r"\text{<script>alert(1)</script>}",
            r"\operatorname{<img src=x>}",
            r"\href{javascript:x}{y}",
            "<mscript>",
            r"\text{<math onload=x>}",
        ] {
            if let Some(tag) = markup(latex, true) {
                let shown = format!("{tag:?}");
                assert!(!shown.contains("onload\",") && !shown.contains("name: \"mscript\""), "{shown}");
            }
        }
        for hostile in
            ["{".repeat(2000), r"\frac{1}{".repeat(400), r"\left(".repeat(600), "x^{".repeat(1000), r"\begin{matrix}".repeat(280)]
        {
            let whole = format!("{hostile}{}", "}".repeat(hostile.matches('{').count()));
            assert_eq!(markup(&whole, true), None);
        }
        assert_eq!(formulas(&format!("\\({}\\)", "x".repeat(LONGEST))), [""; 0]);
    }

    /// What ends the popup would end it whenever the conversation is opened.
    #[test]
    fn math_random_commands_never_panic() {
        const PARTS: &str = r#"\frac { } x ^ _ \left \right ( ) | \begin{array} {c|l} {||c} \end{array} \begin{align} \end{align} \begin{cases}
            \end{cases} \begin{alignat} {2} \end{alignat} \begin{split} \end{split} & \\ \hline \text \sqrt \not ' \color{red} \sum \boxed
            \tag{1} \tag{ \label{ \char \kern 1em \substack \middle \big \operatorname é 😀 % \genfrac \overset \xrightarrow \binom < " \ $
            \\[1em] \mathbb"#;
        for cut in [
            "\\kern1em\u{a0}x",
            "\\hspace{1em\u{3000}}",
            "\\begin{matrix}a\\\\[1em\u{a0}]b\\end{matrix}",
            "\\color{#aé123}x",
            "\\begin{alignedat}{é}x\\end{alignedat}",
        ] {
            markup(cut, true);
        }
        let parts: Vec<_> = PARTS.split_whitespace().collect();
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..5_000 {
            let mut soup = String::new();
            for _ in 0..12 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                soup.push_str(parts[(state % parts.len() as u64) as usize]);
            }
            markup(&soup, true);
        }
    }
}
