//! An answer that grows: what is finished in it is read once.

use super::{Kind, Node, math, read};

/// A paragraph longer than this, in bytes, is read on from a place in its middle.
const LONG: usize = 2048;
/// Such a place is at least so many bytes before the end: what is being written there may still become something else.
const BEHIND: usize = math::LONGEST_BETWEEN_DOLLARS;
/// A paragraph longer than this is read on from its middle even if a mark is open there; in the end it is read as a whole.
const TOO_LONG: usize = 4 * LONG;
/// With more bytes than this it is clear what a block is.
const BEGUN: usize = 8;
/// A block longer than this is read again when it has grown by a part of [`GROWTH`] only, and so in linear time.
const LARGE: usize = 8 * LONG;
/// See [`LARGE`].
const GROWTH: usize = 32;

/// An answer, of which more and more is known.
#[derive(Debug, Default)]
pub struct Document {
    /// Where the first block that may change begins.
    start: usize,
    /// Bytes of it that are finished, if it is a paragraph.
    finished: usize,
    /// Bytes after that when they were read last.
    seen: usize,
    /// Whether a paragraph was cut at a place where a mark was open.
    inexact: bool,
    /// Bytes read since the beginning, of whatever was read again as often as it was.
    work: usize,
}

/// How an answer is to be shown.
#[derive(Debug, PartialEq, Eq)]
pub struct Update {
    /// What is to be forgotten of what was shown.
    pub changed: Changed,
    /// All blocks that are not finished. The children of the first follow its finished ones.
    pub nodes: Vec<Node>,
    /// How many of the blocks are finished now.
    pub blocks: usize,
    /// How many children of the block after those are finished now.
    pub children: usize,
}

/// The target of an [`Update`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// The blocks that were not finished.
    Rest,
    /// Those, and what was finished of the first.
    Block,
    /// Everything.
    All,
}

impl Document {
    /// Reads `source`, which begins with what it was before. In the `end` nothing is left out; before that, `None` means that
    /// it is too early to read a large block again.
    pub fn update(&mut self, source: &str, end: bool) -> Option<Update> {
        // A link may be defined after it was used.
        if end && self.start + self.finished > 0 && (self.inexact || source.contains("]: ")) {
            *self = Self { work: self.work, ..Self::default() };
            return Some(self.read(source, end, Changed::All));
        }
        let length = source.len() - self.start - self.finished;
        if !end && length > LARGE && length - self.seen < self.seen / GROWTH {
            return None;
        }
        Some(self.read(source, end, Changed::Rest))
    }

    /// Bytes read so far.
    pub fn work(&self) -> usize {
        self.work
    }

    fn read(&mut self, source: &str, end: bool, mut changed: Changed) -> Update {
        let mut from = self.start + self.finished;
        let mut blocks = self.parse(&source[from..]);
        // With what follows, a paragraph may be a heading or a table.
        if self.finished > 0 && !matches!(blocks.first(), Some((_, Node::Element(Kind::Paragraph, _)))) {
            from = self.start;
            self.finished = 0;
            changed = Changed::Block;
            blocks = self.parse(&source[from..]);
        }
        self.seen = source.len() - from;
        // The first characters of a line may still belong to the block before: a row of a table.
        let sure = blocks.last().is_some_and(|(start, _)| source.len() - from - start > BEGUN);
        let mut finished = if end { 0 } else { blocks.len().saturating_sub(if sure { 1 } else { 2 }) };
        // What a formula without an end contains may look like other blocks.
        if let Some(open) = math::open(&source[from..]) {
            finished = finished.min(blocks.iter().take_while(|(start, _)| *start <= open).count().saturating_sub(1));
        }
        // Calls of one list begin at the same place: they are finished together.
        while finished > 0 && finished < blocks.len() && blocks[finished].0 == blocks[finished - 1].0 {
            finished -= 1;
        }
        let next = blocks.get(finished).map_or(0, |(start, _)| *start);
        let mut nodes: Vec<_> = blocks.into_iter().map(|(_, node)| node).collect();
        if finished > 0 {
            self.start = from + next;
            self.finished = 0;
            self.seen -= next;
        }
        let rest = &mut nodes[finished..];
        let children = if let [last] = rest
            && !end
        {
            self.cut(source, last)
        } else {
            0
        };
        Update { changed, nodes, blocks: finished, children }
    }

    /// Cuts what is not finished of a long paragraph in two, and says how many children belong to the part that is finished now.
    fn cut(&mut self, source: &str, paragraph: &mut Node) -> usize {
        let from = self.start + self.finished;
        let rest = &source[from..];
        let Node::Element(Kind::Paragraph, children) = paragraph else { return 0 };
        if rest.len() <= LONG {
            return 0;
        }
        let Some(place) = place(rest) else { return 0 };
        let Some(mut before) = self.paragraph(&rest[..place]) else { return 0 };
        if !is_closed(&before) {
            if rest.len() <= TOO_LONG {
                return 0;
            }
            self.inexact = true;
        }
        let Some(after) = self.paragraph(&rest[place..]) else { return 0 };
        // The space between the two is the end of neither.
        match before.last_mut() {
            Some(Node::Text(text)) => text.push(' '),
            _ => before.push(Node::Text(" ".to_owned())),
        }
        self.finished += place;
        self.seen -= place;
        let finished = before.len();
        before.extend(after);
        *children = before;
        finished
    }

    /// The children of the paragraph that `source` is, if it is one.
    fn paragraph(&mut self, source: &str) -> Option<Vec<Node>> {
        let mut blocks = self.parse(source);
        match (blocks.pop(), blocks.is_empty()) {
            (Some((_, Node::Element(Kind::Paragraph, children))), true) => Some(children),
            _ => None,
        }
    }

    fn parse(&mut self, source: &str) -> Vec<(usize, Node)> {
        self.work += source.len();
        read(source)
    }
}

/// Where a paragraph may be cut: before a word, which begins no block, in a line that is no row of a table.
fn place(paragraph: &str) -> Option<usize> {
    let mut end = paragraph.len() - BEHIND;
    while !paragraph.is_char_boundary(end) {
        end -= 1;
    }
    let line = paragraph[..end].rfind('\n').map_or(0, |newline| newline + 1);
    let place = line + paragraph[line..end].rfind(' ')? + 1;
    let fits = paragraph[place..].starts_with(char::is_alphabetic) && !paragraph[..place].ends_with("  ");
    let in_table = paragraph[line..].lines().next().is_some_and(|line| line.contains('|'));
    (fits && !in_table).then_some(place)
}

/// Whether nothing in the texts of a paragraph can be the beginning of something that ends later.
fn is_closed(children: &[Node]) -> bool {
    let mut brackets = 0_isize;
    let mut closed = true;
    let mut before = ' ';
    for (index, node) in children.iter().enumerate() {
        // A space is behind the paragraph, and something else behind a text before its end.
        let behind = if index + 1 == children.len() { ' ' } else { 'x' };
        let Node::Text(text) = node else {
            before = ' ';
            continue;
        };
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            let next = characters.peek().copied().unwrap_or(behind);
            brackets += isize::from(character == '[') - isize::from(character == ']' && brackets > 0);
            closed &= match character {
                '`' => false,
                '*' | '~' => next.is_whitespace(),
                '_' => next.is_whitespace() || before.is_alphanumeric(),
                '<' => !(next.is_ascii_alphabetic() || matches!(next, '/' | '!' | '?')),
                '\\' => !matches!(next, '(' | '['),
                '$' => next != '$',
                _ => true,
            };
            before = character;
        }
    }
    closed && brackets == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::markdown::parse;

    /// Stands for the DOM: applies updates as the view does.
    #[derive(Default)]
    struct Shown {
        document: Document,
        blocks: Vec<Node>,
        finished: usize,
        children: usize,
    }

    impl Shown {
        fn update(&mut self, source: &str, end: bool) {
            let Some(Update { changed, nodes, blocks, children }) = self.document.update(source, end) else { return };
            match changed {
                Changed::Rest => {}
                Changed::Block => self.children = 0,
                Changed::All => (self.finished, self.children) = (0, 0),
            }
            let kept = match self.blocks.get(self.finished) {
                Some(Node::Element(_, kept)) => kept[..self.children.min(kept.len())].to_vec(),
                _ => Vec::new(),
            };
            self.blocks.truncate(self.finished);
            self.blocks.extend(nodes);
            if !kept.is_empty() {
                let Some(Node::Element(Kind::Paragraph, rest)) = self.blocks.get_mut(self.finished) else {
                    panic!("what is finished is in a paragraph")
                };
                rest.splice(..0, kept);
            }
            self.finished += blocks;
            self.children = if blocks > 0 { children } else { self.children + children };
        }

        fn nodes(&self) -> Vec<Node> {
            self.blocks.iter().cloned().map(joined).collect()
        }
    }

    /// With texts joined to those before them.
    fn joined(node: Node) -> Node {
        let Node::Element(kind, children) = node else { return node };
        let mut all: Vec<Node> = Vec::new();
        for child in children.into_iter().map(joined) {
            match (all.last_mut(), child) {
                (Some(Node::Text(before)), Node::Text(text)) => before.push_str(&text),
                (_, child) => all.push(child),
            }
        }
        Node::Element(kind, all)
    }

    fn grow(source: &str, step: usize, mut check: impl FnMut(&Shown, &str)) -> Shown {
        let mut shown = Shown::default();
        let mut end = 0;
        while end < source.len() {
            end = (end + step).min(source.len());
            while !source.is_char_boundary(end) {
                end += 1;
            }
            shown.update(&source[..end], false);
            check(&shown, &source[..end]);
        }
        shown.update(source, true);
        shown
    }

    const MIXED: &str = "# Title\n\nSome *text* with `code`, \\(a_1\\) and https://a.b.\n\n- a\n- b\n\n  more\n- c\n\n1. x\n\n```rust\nlet a = 1;\n\nlet b = 2;\n```\n\n\
        | a | b |\n| - | - |\n| 1 | 2 |\n\n> quote\nlazy\n\nSetext\n===\n\n\\[\nx^2\n\\]\n\n<tool_call>{\"name\": \"a\", \"arguments\": {}}</tool_call>\n\n    indented\n\n\
        \\[\na\n+ b + c + d + e\n\\]\n\n$$\na\n- b - c - d - e\n$$\n\nEnd.";

    #[test]
    fn document_growing_equals_whole_parse() {
        for step in [1, 7] {
            let shown = grow(MIXED, step, |shown, source| assert_eq!(shown.nodes(), parse(source), "{source}"));
            assert_eq!(shown.nodes(), parse(MIXED));
        }
        let list = "Now.\n\n[TOOL_CALLS][{\"name\":\"a\",\"arguments\":{}},{\"name\":\"b\",\"arguments\":{}}]";
        assert_eq!(grow(list, 1, |shown, source| assert_eq!(shown.nodes(), parse(source), "{source}")).nodes(), parse(list));
        let words = "Plain words, *emphasis*, `code`, \\(x_1\\), [a link](https://a.b), a 2 * 3, snake_case, [1] and é 한국어. ".repeat(60);
        for long in [words.clone(), words.replace(". ", ".\n")] {
            let shown = grow(&long, 197, |shown, source| assert!(shown.nodes() == parse(source), "after {} bytes", source.len()));
            assert!(shown.document.start + shown.document.finished > long.len() / 2, "it is read on from its middle");
            assert_eq!(shown.nodes(), parse(&long));
        }
    }

    #[test]
    fn document_early_cut_is_corrected() {
        let words = "plain words ".repeat(1000);
        for source in [
            format!("*{words}end*"),
            format!("{words}\n==="),
            format!("See [x]. {words}\n\n{words}\n\n[x]: https://a.b"),
            format!("{words}\nname | fruit\n- | -\na | b"),
            format!("`{words}`"),
        ] {
            assert!(grow(&source, 41, |_, _| {}).nodes() == parse(&source), "{}", &source[..20]);
        }
    }

    #[test]
    fn document_work_is_linear_in_length() {
        let work = |source: &str| grow(source, 17, |_, _| {}).document.work();
        for (what, part) in [
            ("one paragraph", "plain words of a paragraph "),
            ("one paragraph with marks", "some *marked* words_and `code` "),
            ("paragraphs", "A paragraph of some words that is not long.\n\n"),
            ("one list", "- an item\n"),
            ("one table", "a | b\n"),
        ] {
            let head = if what == "one table" { "a | b\n- | -\n" } else { "" };
            let [once, twice] = [20_000, 40_000].map(|length| work(&format!("{head}{}", part.repeat(length / part.len()))));
            assert!(twice < 3 * once, "{what}: {once} bytes read for 20,000, {twice} for 40,000");
        }
        let code = format!("```\n{}", "let a = 1;\n".repeat(4000));
        assert!(work(&code) < 400 * code.len(), "{}", work(&code));
        let paragraph = "plain words of a paragraph ".repeat(2000);
        assert!(work(&paragraph) < 300 * paragraph.len(), "{}", work(&paragraph));
    }

    #[test]
    fn document_finished_blocks_are_parsed_once() {
        let mut document = Document::default();
        let start = "First *paragraph*.\n\n".repeat(500) + "Sec";
        document.update(&start, false);
        let before = document.work();
        let update = document.update(&(start + "ond"), false);
        assert!(document.work() - before < 40, "only the last blocks are read again");
        assert_eq!(update.and_then(|update| update.nodes.last().cloned()), parse("Second").pop());
    }
}
