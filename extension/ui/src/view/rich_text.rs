//! Markdown trees as DOM nodes.
//!
//! Only `createElement` with names from this file, text nodes, and the attributes set here: nothing in a model's answer is
//! ever parsed as HTML. [`RichText::update`] leaves alone what is finished and changes only what differs in the rest, so a growing
//! answer costs little, and text selected in it stays selected.

use crate::markdown::{Align, Changed, Document, Formula, Kind, Markup, MathTag, Node, Update};
use crate::view::dom;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{CharacterData, Element};

const MATHML: &str = "http://www.w3.org/1998/Math/MathML";

/// An element that shows an answer.
pub(crate) struct RichText {
    root: Element,
    document: Document,
    /// Elements that may still change.
    shown: Vec<Node>,
    /// Children of the root that are finished.
    blocks: u32,
    /// Finished children of the one after those.
    children: u32,
}

impl RichText {
    /// Shows nothing in `root`, which is empty.
    pub(crate) fn new(root: Element) -> Self {
        Self { root, document: Document::default(), shown: Vec::new(), blocks: 0, children: 0 }
    }

    /// Shows `source`, which begins with what it was before unless `other`; `end`: no more follows.
    ///
    /// # Errors
    /// Those of the DOM; none is expected.
    pub(crate) fn update(&mut self, source: &str, other: bool, end: bool) -> Result<(), JsValue> {
        if other {
            self.document = Document::default();
        }
        let Some(Update { changed, nodes, blocks, children }) = self.document.update(source, end) else { return Ok(()) };
        match if other { Changed::All } else { changed } {
            Changed::Rest => {}
            Changed::Block => {
                self.children = 0;
                self.forget(self.blocks)?;
            }
            Changed::All => {
                (self.blocks, self.children) = (0, 0);
                self.forget(0)?;
            }
        }
        patch(&self.root, (self.blocks, self.children), &self.shown, &nodes)?;
        for index in self.blocks..self.blocks + nodes.len() as u32 {
            // The content of a block follows its direction, and each line within its own.
            if let Some(block) = self.root.children().item(index).filter(|block| !block.has_attribute("dir")) {
                block.set_attribute("dir", "auto")?;
            }
        }
        self.shown = nodes;
        self.shown.drain(..blocks);
        if blocks > 0 {
            self.blocks += blocks as u32;
            self.children = 0;
        }
        if let Some(Node::Element(_, unfinished)) = self.shown.first_mut().filter(|_| children > 0) {
            unfinished.drain(..children);
            self.children += children as u32;
        }
        Ok(())
    }

    /// Takes the blocks from number `from` on away.
    fn forget(&mut self, from: u32) -> Result<(), JsValue> {
        self.shown.clear();
        remove_from(&self.root, from)
    }
}

/// Makes the children of `parent` after the first `finished`, which show `old`, show `new`. Node number i is child number i.
/// The second number is that of the finished children of the first of these children.
fn patch(parent: &Element, (finished, within): (u32, u32), old: &[Node], new: &[Node]) -> Result<(), JsValue> {
    let children = parent.child_nodes();
    for (index, node) in new.iter().enumerate() {
        let before = old.get(index);
        if before == Some(node) {
            continue;
        }
        let child = children.get(finished + index as u32);
        match (child, before, node) {
            (Some(child), Some(Node::Text(before)), Node::Text(text)) => set_text(child.unchecked_ref(), before, text)?,
            (Some(child), Some(Node::Code { language: a, text: before }), Node::Code { language: b, text }) if a == b => {
                let code = dom::find(child.unchecked_ref(), "code")?;
                match code.first_child() {
                    Some(inside) => set_text(inside.unchecked_ref(), before, text)?,
                    None => code.set_text_content(Some(text)),
                }
            }
            (Some(child), Some(Node::Element(a, before)), Node::Element(b, after)) if a == b => {
                let within = if index == 0 { within } else { 0 };
                patch(&holder(child.unchecked_into(), a), (within, 0), before, after)?;
            }
            (Some(child), ..) => {
                parent.replace_child(&build(node)?, &child)?;
            }
            (None, ..) => {
                parent.append_child(&build(node)?)?;
            }
        }
    }
    remove_from(parent, finished + new.len() as u32)
}

/// Only what was added: the browser shapes that alone.
fn set_text(shown: &CharacterData, before: &str, text: &str) -> Result<(), JsValue> {
    if let Some(added) = text.strip_prefix(before) {
        return shown.append_data(added);
    }
    shown.set_data(text);
    Ok(())
}

fn remove_from(parent: &Element, first: u32) -> Result<(), JsValue> {
    let children = parent.child_nodes();
    while let Some(surplus) = children.get(first) {
        parent.remove_child(&surplus)?;
    }
    Ok(())
}

/// The element that has the children: a table is in a box that scrolls.
fn holder(element: Element, kind: &Kind) -> Element {
    if *kind == Kind::Table { element.first_element_child().unwrap_or(element) } else { element }
}

fn build(node: &Node) -> Result<web_sys::Node, JsValue> {
    match node {
        Node::Text(text) => Ok(dom::document()?.create_text_node(text).into()),
        Node::Code { language, text } => code_block(if language.is_empty() { "code" } else { language }, text),
        Node::Call(call) => {
            let name = if call.name.is_empty() { "a tool" } else { &call.name };
            code_block(&format!("Calls {name}"), &call.arguments)
        }
        Node::Math(formula) => math(formula),
        Node::Element(Kind::Table, rows) => {
            let scroller = dom::instantiate("table-box")?;
            patch(&holder(scroller.clone().into(), &Kind::Table), (0, 0), &[], rows)?;
            Ok(scroller.into())
        }
        Node::Element(kind, children) => {
            let element = dom::create(tag(kind))?;
            attributes(&element, kind)?;
            patch(&element, (0, 0), &[], children)?;
            Ok(element.into())
        }
    }
}

fn code_block(title: &str, text: &str) -> Result<web_sys::Node, JsValue> {
    let block = dom::instantiate("code-block")?;
    dom::set_text(&*dom::find(&block, ".language")?, title);
    dom::find(&block, "code")?.set_text_content(Some(text));
    Ok(block.into())
}

/// A formula; one with lines of its own scrolls if it is wide.
fn math(formula: &Formula) -> Result<web_sys::Node, JsValue> {
    let shown: web_sys::Node = if let Some(markup) = &formula.markup {
        math_element(markup)?.into()
    } else {
        let code = dom::create("code")?;
        code.set_text_content(Some(&formula.latex));
        code.into()
    };
    if !formula.display {
        return Ok(shown);
    }
    let scroller = dom::create("span")?;
    scroller.set_attribute("class", "formula")?;
    scroller.set_attribute("tabindex", "0")?;
    scroller.append_child(&shown)?;
    Ok(scroller.into())
}

fn math_element(tag: &MathTag) -> Result<Element, JsValue> {
    let document = dom::document()?;
    let element = document.create_element_ns(Some(MATHML), tag.name)?;
    for (name, value) in &tag.attributes {
        element.set_attribute(name, value)?;
    }
    for child in &tag.children {
        match child {
            Markup::Text(text) => element.append_child(&document.create_text_node(text))?,
            Markup::Tag(tag) => element.append_child(&*math_element(tag)?)?,
        };
    }
    Ok(element)
}

fn tag(kind: &Kind) -> &'static str {
    match kind {
        Kind::Paragraph | Kind::Raw => "p",
        // The popup's own headings are of levels 1 and 2.
        Kind::Heading(1) => "h3",
        Kind::Heading(2) => "h4",
        Kind::Heading(3) => "h5",
        Kind::Heading(_) => "h6",
        Kind::Quote => "blockquote",
        Kind::Bullets => "ul",
        Kind::Numbers(_) => "ol",
        Kind::Item => "li",
        Kind::Checkbox(_) => "input",
        Kind::Table => "table",
        Kind::Row => "tr",
        Kind::Header(_) => "th",
        Kind::Cell(_) => "td",
        Kind::Emphasis => "em",
        Kind::Strong => "strong",
        Kind::Strike => "s",
        Kind::InlineCode => "code",
        Kind::Link(_) => "a",
        Kind::Break => "br",
        Kind::Rule => "hr",
    }
}

fn attributes(element: &Element, kind: &Kind) -> Result<(), JsValue> {
    match kind {
        Kind::Raw => element.set_attribute("class", "raw")?,
        Kind::Numbers(first) => element.set_attribute("start", &first.to_string())?,
        Kind::Checkbox(checked) => {
            element.set_attribute("type", "checkbox")?;
            element.set_attribute("disabled", "")?;
            element.set_attribute("aria-label", if *checked { "done" } else { "not done" })?;
            if *checked {
                element.set_attribute("checked", "")?;
            }
        }
        Kind::Header(align) | Kind::Cell(align) => {
            element.set_attribute(
                "class",
                match align {
                    Align::Start => "start",
                    Align::Center => "center",
                    Align::End => "end",
                },
            )?;
        }
        Kind::Link(address) => {
            element.set_attribute("href", address)?;
            element.set_attribute("title", address)?;
            element.set_attribute("rel", "noopener noreferrer nofollow")?;
            element.set_attribute("target", "_blank")?;
        }
        _ => {}
    }
    if matches!(kind, Kind::Header(_)) {
        element.set_attribute("scope", "col")?;
    }
    Ok(())
}
