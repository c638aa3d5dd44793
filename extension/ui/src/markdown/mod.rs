//! Markdown as a tree that cannot carry anything active.
//!
//! The tree has no place for HTML, scripts, styles, images or event handlers: raw HTML becomes text, an image becomes a link
//! to it, and a link whose scheme is not in [`SCHEMES`] becomes its text. The view builds DOM nodes from the tree with
//! `createElement` and text nodes only.

mod calls;
mod document;
mod links;
mod math;

use std::ops::Range;

use pulldown_cmark::{Alignment, CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag};

pub use calls::{Call, before as before_calls};
pub use document::{Changed, Document, Update};
pub use math::{Formula, Markup, Tag as MathTag};
use math::{Formulas, Piece};

/// Beginnings of permitted links, compared without regard to case.
pub const SCHEMES: [&str; 3] = ["https://", "http://", "mailto:"];

/// Elements nested deeper than this are shown in their ancestor: hostile text cannot exhaust the stack.
const MAX_DEPTH: usize = 24;

/// A node of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Characters, shown as they are.
    Text(String),
    /// A block of code with the first word of its info string, empty if it has none.
    Code {
        /// `rust`, `python`, …
        language: String,
        /// The code, without the fence.
        text: String,
    },
    /// A formula.
    Math(Formula),
    /// A call of a tool.
    Call(Call),
    /// Anything that has children.
    Element(Kind, Vec<Node>),
}

/// Kinds of elements; each becomes one DOM element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A paragraph.
    Paragraph,
    /// A block of raw HTML, shown as text.
    Raw,
    /// A heading of level 1 to 6.
    Heading(u8),
    /// A block quote.
    Quote,
    /// A bulleted list.
    Bullets,
    /// A numbered list and its first number.
    Numbers(u64),
    /// An item of a list.
    Item,
    /// The box of a task list's item: done or not.
    Checkbox(bool),
    /// A table; its children are rows.
    Table,
    /// A row; its children are [`Kind::Header`]s or [`Kind::Cell`]s.
    Row,
    /// A cell of a table's head.
    Header(Align),
    /// A cell of a table's body.
    Cell(Align),
    /// Emphasized text.
    Emphasis,
    /// Strongly emphasized text.
    Strong,
    /// Struck text.
    Strike,
    /// Code within a line.
    InlineCode,
    /// A link to an address with one of the [`SCHEMES`].
    Link(String),
    /// A line break.
    Break,
    /// A thematic break.
    Rule,
}

/// How a table's column is aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Where the text's direction begins.
    Start,
    /// In the middle.
    Center,
    /// Where the text's direction ends.
    End,
}

impl From<Alignment> for Align {
    fn from(alignment: Alignment) -> Self {
        match alignment {
            Alignment::None | Alignment::Left => Self::Start,
            Alignment::Center => Self::Center,
            Alignment::Right => Self::End,
        }
    }
}

/// Reads an answer: Markdown (`CommonMark` with tables, strikethrough and task lists) with formulas, bare addresses and calls of
/// tools.
///
/// A line break in the source is one in the tree: chat models write verses and lists so.
pub fn parse(source: &str) -> Vec<Node> {
    read(source).into_iter().map(|(_, node)| node).collect()
}

/// The blocks of an answer, each with the place in `source` where it begins.
fn read(source: &str) -> Vec<(usize, Node)> {
    let code = if math::possible(source) || calls::possible(source) { code_ranges(source) } else { Vec::new() };
    let mut blocks = Vec::new();
    let mut at = 0;
    while let Some((call, found)) = calls::find(&source[at..], &shifted(&code, at)) {
        read_markdown(source, at..at + call.start, &code, &mut blocks);
        blocks.extend(found.into_iter().map(|found| (at + call.start, Node::Call(found))));
        at += call.end;
    }
    read_markdown(source, at..source.len(), &code, &mut blocks);
    blocks
}

fn read_markdown(source: &str, range: Range<usize>, code: &[Range<usize>], blocks: &mut Vec<(usize, Node)>) {
    let part = &source[range.clone()];
    let formulas = if math::possible(part) { Formulas::find(part, &shifted(code, range.start)) } else { Formulas::default() };
    let marked = formulas.mark(part);
    let mut builder = Builder::new(part, &formulas);
    for (event, range) in Parser::new_ext(&marked, options()).into_offset_iter() {
        builder.event(event, range);
    }
    let starts = std::mem::take(&mut builder.starts);
    let nodes = builder.finish();
    for (start, node) in starts.into_iter().zip(nodes) {
        // The parser leaves out white space before a block, which means something.
        let start = part[..start].trim_end_matches([' ', '\t']).len();
        blocks.extend(links::mark(vec![node]).into_iter().map(|node| (range.start + start, node)));
    }
}

fn options() -> Options {
    Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS
}

/// Where `source` is code, in which nothing means anything.
fn code_ranges(source: &str) -> Vec<Range<usize>> {
    let is_code = |event: &Event<'_>| matches!(event, Event::Code(_) | Event::Start(Tag::CodeBlock(_)));
    Parser::new_ext(source, options()).into_offset_iter().filter(|(event, _)| is_code(event)).map(|(_, range)| range).collect()
}

/// The parts of `ranges` behind `by`, counted from there.
fn shifted(ranges: &[Range<usize>], by: usize) -> Vec<Range<usize>> {
    ranges.iter().filter(|range| range.end > by).map(|range| range.start.saturating_sub(by)..range.end - by).collect()
}

/// The text of `source` without its marks, for a screen reader.
pub fn plain_text(source: &str) -> String {
    fn collect(nodes: &[Node], text: &mut String) {
        for node in nodes {
            match node {
                Node::Text(part) => text.push_str(part),
                Node::Math(formula) => text.push_str(&formula.latex),
                Node::Code { text: part, .. } => {
                    text.push_str(part);
                    text.push(' ');
                }
                Node::Call(call) => {
                    text.push_str("Calls ");
                    text.push_str(&call.name);
                    text.push_str(". ");
                }
                Node::Element(Kind::Break, _) => text.push(' '),
                Node::Element(kind, children) => {
                    collect(children, text);
                    if !matches!(kind, Kind::Emphasis | Kind::Strong | Kind::Strike | Kind::InlineCode | Kind::Link(_)) {
                        text.push(' ');
                    }
                }
            }
        }
    }
    let mut text = String::new();
    collect(&parse(source), &mut text);
    text.trim().to_owned()
}

/// `address` when a click on it can do no harm.
fn safe_address(address: &str) -> Option<String> {
    let safe = SCHEMES.iter().any(|scheme| address.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    safe.then(|| address.to_owned())
}

/// What an open tag becomes when it ends.
enum Open {
    Element(Kind),
    /// A code block and its language.
    Code(String),
    /// Nothing of its own: its children go to its parent.
    Nothing,
}

/// Builds the tree from the parser's events.
struct Builder<'a> {
    /// The source with its formulas, of which the parser saw marks only.
    source: &'a str,
    formulas: &'a Formulas,

    /// Open elements, outermost first, with the children they have so far.
    open: Vec<(Open, Vec<Node>)>,
    /// Finished nodes of the outermost level.
    done: Vec<Node>,
    /// Where each of them begins.
    starts: Vec<usize>,
    /// Where the one being read begins.
    start: usize,
    /// Alignments of the table being read.
    columns: Vec<Align>,
    /// Index of the next cell in its row.
    column: usize,
    in_head: bool,
}

impl<'a> Builder<'a> {
    fn new(source: &'a str, formulas: &'a Formulas) -> Self {
        let (open, done, starts, columns) = <(Vec<_>, Vec<_>, Vec<_>, Vec<_>)>::default();
        Self { source, formulas, open, done, starts, start: 0, columns, column: 0, in_head: false }
    }

    fn event(&mut self, event: Event<'_>, range: Range<usize>) {
        if self.open.is_empty() {
            self.start = range.start;
        }
        self.read(event, range);
        self.starts.resize(self.done.len(), self.start);
    }

    fn read(&mut self, event: Event<'_>, range: Range<usize>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(_) => self.end(),
            Event::InlineHtml(html) if matches!(&*html, "<br>" | "<br/>" | "<br />") => {
                self.push(Node::Element(Kind::Break, Vec::new()));
            }
            Event::Code(code) => {
                self.push(Node::Element(Kind::InlineCode, vec![Node::Text(code.into_string())]));
            }
            Event::SoftBreak | Event::HardBreak => {
                self.push(Node::Element(Kind::Break, Vec::new()));
            }
            Event::Rule => self.push(Node::Element(Kind::Rule, Vec::new())),
            Event::TaskListMarker(checked) => {
                self.push(Node::Element(Kind::Checkbox(checked), Vec::new()));
            }
            // What is as long as its source is its source, with formulas.
            Event::Text(text) if text.len() == range.len() => {
                for piece in self.formulas.pieces(self.source, range) {
                    match piece {
                        Piece::Text(text) => self.text(text),
                        Piece::Formula(formula) => self.push(Node::Math(formula)),
                    }
                }
            }
            Event::Html(html) | Event::InlineHtml(html) if html.len() == range.len() => self.text(&self.source[range]),
            // Mathematics and footnotes of the parser are not enabled; their source would be all there is to show.
            Event::Text(text)
            | Event::Html(text)
            | Event::InlineHtml(text)
            | Event::InlineMath(text)
            | Event::DisplayMath(text)
            | Event::FootnoteReference(text) => self.text(&text),
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        let open = match tag {
            Tag::Paragraph => Open::Element(Kind::Paragraph),
            Tag::HtmlBlock => Open::Element(Kind::Raw),
            Tag::Heading { level, .. } => Open::Element(Kind::Heading(heading_level(level))),
            Tag::BlockQuote(_) => Open::Element(Kind::Quote),
            Tag::CodeBlock(CodeBlockKind::Fenced(info)) => Open::Code(info.split_whitespace().next().unwrap_or_default().to_owned()),
            Tag::CodeBlock(CodeBlockKind::Indented) => Open::Code(String::new()),
            Tag::List(None) => Open::Element(Kind::Bullets),
            Tag::List(Some(first)) => Open::Element(Kind::Numbers(first)),
            Tag::Item => Open::Element(Kind::Item),
            Tag::Table(alignments) => {
                self.columns = alignments.into_iter().map(Align::from).collect();
                Open::Element(Kind::Table)
            }
            Tag::TableHead | Tag::TableRow => {
                self.column = 0;
                self.in_head = matches!(tag, Tag::TableHead);
                Open::Element(Kind::Row)
            }
            Tag::TableCell => {
                let align = self.columns.get(self.column).copied().unwrap_or(Align::Start);
                self.column += 1;
                Open::Element(if self.in_head { Kind::Header(align) } else { Kind::Cell(align) })
            }
            Tag::Emphasis => Open::Element(Kind::Emphasis),
            Tag::Strong => Open::Element(Kind::Strong),
            Tag::Strikethrough => Open::Element(Kind::Strike),
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => {
                safe_address(&dest_url).map_or(Open::Nothing, |address| Open::Element(Kind::Link(address)))
            }
            _ => Open::Nothing,
        };
        let open = if self.open.len() < MAX_DEPTH { open } else { Open::Nothing };
        self.open.push((open, Vec::new()));
    }

    fn end(&mut self) {
        let Some((open, children)) = self.open.pop() else {
            return;
        };
        match open {
            Open::Element(Kind::Link(address)) if children.is_empty() => {
                let text = vec![Node::Text(address.clone())];
                self.push(Node::Element(Kind::Link(address), text));
            }
            Open::Element(kind) => self.push(Node::Element(kind, children)),
            Open::Code(language) => {
                let text =
                    children.into_iter().filter_map(|node| if let Node::Text(text) = node { Some(text) } else { None }).collect::<String>();
                let text = text.strip_suffix('\n').unwrap_or(&text).to_owned();
                self.push(Node::Code { language, text });
            }
            Open::Nothing => children.into_iter().for_each(|child| self.push(child)),
        }
    }

    /// Appends text, joined to text before it.
    fn text(&mut self, text: &str) {
        let siblings = self.siblings();
        if let Some(Node::Text(before)) = siblings.last_mut() {
            before.push_str(text);
        } else {
            siblings.push(Node::Text(text.to_owned()));
        }
    }

    fn push(&mut self, node: Node) {
        match node {
            Node::Text(text) => self.text(&text),
            node => self.siblings().push(node),
        }
    }

    fn siblings(&mut self) -> &mut Vec<Node> {
        self.open.last_mut().map_or(&mut self.done, |(_, children)| children)
    }

    fn finish(mut self) -> Vec<Node> {
        while !self.open.is_empty() {
            self.end();
        }
        self.done
    }
}

fn heading_level(level: HeadingLevel) -> u8 {
    match level {
        HeadingLevel::H1 => 1,
        HeadingLevel::H2 => 2,
        HeadingLevel::H3 => 3,
        HeadingLevel::H4 => 4,
        HeadingLevel::H5 => 5,
        HeadingLevel::H6 => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Node {
        Node::Text(text.to_owned())
    }

    fn element(kind: Kind, children: impl Into<Vec<Node>>) -> Node {
        Node::Element(kind, children.into())
    }

    fn paragraph(children: impl Into<Vec<Node>>) -> Node {
        element(Kind::Paragraph, children)
    }

    fn links(nodes: &[Node]) -> Vec<&str> {
        nodes
            .iter()
            .flat_map(|node| match node {
                Node::Element(Kind::Link(address), _) => vec![address.as_str()],
                Node::Element(_, children) => links(children),
                _ => Vec::new(),
            })
            .collect()
    }

    #[test]
    fn inline_marks_become_elements() {
        assert_eq!(
            parse("a *b* **c** ~~d~~ `e<f>`\ng"),
            [paragraph([
                text("a "),
                element(Kind::Emphasis, [text("b")]),
                text(" "),
                element(Kind::Strong, [text("c")]),
                text(" "),
                element(Kind::Strike, [text("d")]),
                text(" "),
                element(Kind::InlineCode, [text("e<f>")]),
                element(Kind::Break, []),
                text("g"),
            ])]
        );
    }

    #[test]
    fn code_blocks_keep_language_and_text() {
        let code = |language: &str, text: &str| Node::Code { language: language.into(), text: text.into() };
        assert_eq!(parse("```python x=1\na < b\n\nc\n```"), [code("python", "a < b\n\nc")]);
        assert_eq!(parse("    <b>\n"), [code("", "<b>")]);
        assert_eq!(parse("```js\nlet a"), [code("js", "let a")], "a block that is still being written");
    }

    #[test]
    fn lists_and_tasks_become_elements() {
        assert_eq!(parse("3. a\n4. b"), [element(Kind::Numbers(3), [element(Kind::Item, [text("a")]), element(Kind::Item, [text("b")])])]);
        assert_eq!(parse("- [x] a"), [element(Kind::Bullets, [element(Kind::Item, [element(Kind::Checkbox(true), []), text("a")])])]);
    }

    #[test]
    fn tables_keep_alignment() {
        let cells = |kind: fn(Align) -> Kind, a: &str, b: &str| {
            element(Kind::Row, [element(kind(Align::Start), [text(a)]), element(kind(Align::End), [text(b)])])
        };
        assert_eq!(
            parse("| n | m |\n| - | -: |\n| 1 | 2 |"),
            [element(Kind::Table, [cells(Kind::Header, "n", "m"), cells(Kind::Cell, "1", "2")])]
        );
    }

    #[test]
    fn html_stays_text() {
        assert_eq!(parse("<script>alert(1)</script>"), [element(Kind::Raw, [text("<script>alert(1)</script>")])]);
        assert_eq!(parse("a <img src=x onerror=alert(1)> b"), [paragraph([text("a <img src=x onerror=alert(1)> b")])]);
        assert_eq!(parse("a<br>b"), [paragraph([text("a"), element(Kind::Break, []), text("b")])]);
    }

    #[test]
    fn links_of_unsafe_schemes_stay_text() {
        for address in ["https://a.b/c?d=e", "HTTP://a.b", "mailto:a@b.c"] {
            assert_eq!(links(&parse(&format!("[x]({address})"))), [address]);
        }
        for address in [
            "javascript:alert(1)",
            "JaVaScRiPt:alert(1)",
            "&#106;avascript:alert(1)",
            "java&#9;script:alert(1)",
            "&#1;javascript:alert(1)",
            "data:text/html,x",
            "vbscript:x",
            "file:///etc/passwd",
            "chrome-extension://a/b",
            "blob:https://a.b/c",
            "//a.b",
            "/a",
            "https:a",
            "é",
        ] {
            let tree = parse(&format!("[x]({address})"));
            assert_eq!(links(&tree), [""; 0], "{address}");
            assert_eq!(tree, [paragraph([text("x")])]);
        }
        assert_eq!(links(&parse("<javascript:alert(1)>")), [""; 0]);
    }

    #[test]
    fn bare_addresses_become_links() {
        for (source, address) in [
            ("See https://example.com/c_d_e?f=g.", "https://example.com/c_d_e?f=g"),
            ("(http://example.com/x_(y))", "http://example.com/x_(y)"),
            ("- **https://example.com**", "https://example.com"),
            ("| https://example.com |\n| - |", "https://example.com"),
            ("[https://example.org](https://example.com)", "https://example.com"),
        ] {
            assert_eq!(links(&parse(source)), [address], "{source}");
        }
        for source in [
            "`https://example.com`",
            "```\nhttps://example.com\n```",
            "<iframe src=\"https://example.com\"></iframe>",
            "ftp://example.com",
            "javascript://example.com",
            "main.rs",
            "a@example.com",
        ] {
            assert_eq!(links(&parse(source)), [""; 0], "{source}");
        }
    }

    #[test]
    fn images_become_links() {
        let link = element(Kind::Link("https://a.b/c.png".into()), [text("alt")]);
        assert_eq!(parse("![alt](https://a.b/c.png)"), [paragraph([link])]);
        let unnamed = element(Kind::Link("https://a.b/c.png".into()), [text("https://a.b/c.png")]);
        assert_eq!(parse("![](https://a.b/c.png)"), [paragraph([unnamed])]);
        assert_eq!(parse("![alt](data:image/png;base64,x)"), [paragraph([text("alt")])]);
    }

    #[test]
    fn nesting_depth_is_bounded() {
        fn depth(nodes: &[Node]) -> usize {
            let below = |node: &Node| {
                if let Node::Element(_, children) = node { 1 + depth(children) } else { 0 }
            };
            nodes.iter().map(below).max().unwrap_or(0)
        }
        for source in [">".repeat(5000) + "x", "- ".repeat(5000) + "x", "*a ".repeat(3000) + &"b*".repeat(3000)] {
            assert!(depth(&parse(&source)) <= MAX_DEPTH + 1);
        }
    }

    #[test]
    fn plain_text_omits_marks() {
        assert_eq!(plain_text("# Title\n\n**a** `b`\n- c\n- d"), "Title a b c d");
        assert_eq!(plain_text("```\nlet a = 1;\n```\nName"), "let a = 1; Name");
        assert_eq!(plain_text("so \\(a_1\\) holds"), "so a_1 holds");
        assert_eq!(plain_text("<tool_call>{\"name\": \"weather\"}</tool_call>"), "Calls weather.");
    }
}
