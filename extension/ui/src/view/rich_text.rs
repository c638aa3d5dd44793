//! Markdown trees as DOM nodes.
//!
//! Only `createElement` with names from this file, text nodes, and the attributes set here: nothing in a model's answer is
//! ever parsed as HTML. [`RichText::update`] changes only what differs from the tree it showed before, so a growing answer costs
//! little, and text selected in it stays selected.

use crate::markdown::{Align, Kind, Node};
use crate::view::dom;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::Element;

/// An element that shows a tree.
pub(crate) struct RichText {
    root: Element,
    shown: Vec<Node>,
}

impl RichText {
    /// Shows nothing in `root`, which is empty.
    pub(crate) fn new(root: Element) -> Self {
        Self { root, shown: Vec::new() }
    }

    /// Shows `tree`.
    ///
    /// # Errors
    /// Those of the DOM; none is expected.
    pub(crate) fn update(&mut self, tree: Vec<Node>) -> Result<(), JsValue> {
        patch(&self.root, &self.shown, &tree)?;
        self.shown = tree;
        Ok(())
    }
}

/// Makes the children of `parent`, which show `old`, show `new`. Node number i is child number i.
fn patch(parent: &Element, old: &[Node], new: &[Node]) -> Result<(), JsValue> {
    let children = parent.child_nodes();
    for (index, node) in new.iter().enumerate() {
        let before = old.get(index);
        if before == Some(node) {
            continue;
        }
        let child = children.get(index as u32);
        match (child, before, node) {
            (Some(child), Some(Node::Text(_)), Node::Text(text)) => {
                child.set_node_value(Some(text));
            }
            (Some(child), Some(Node::Code { language: a, .. }), Node::Code { language: b, text }) if a == b => {
                dom::find(child.unchecked_ref(), "code")?.set_text_content(Some(text));
            }
            (Some(child), Some(Node::Element(a, before)), Node::Element(b, after)) if a == b => {
                patch(child.unchecked_ref(), before, after)?;
            }
            (Some(child), ..) => {
                parent.replace_child(&build(node)?, &child)?;
            }
            (None, ..) => {
                parent.append_child(&build(node)?)?;
            }
        }
    }
    while let Some(surplus) = children.get(new.len() as u32) {
        parent.remove_child(&surplus)?;
    }
    Ok(())
}

fn build(node: &Node) -> Result<web_sys::Node, JsValue> {
    match node {
        Node::Text(text) => Ok(dom::document()?.create_text_node(text).into()),
        Node::Code { language, text } => {
            let block = dom::instantiate("code-block")?;
            dom::set_text(&*dom::find(&block, ".language")?, if language.is_empty() { "code" } else { language });
            dom::find(&block, "code")?.set_text_content(Some(text));
            Ok(block.into())
        }
        Node::Element(kind, children) => {
            let element = dom::create(tag(kind))?;
            attributes(&element, kind)?;
            patch(&element, &[], children)?;
            Ok(element.into())
        }
    }
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
    if !matches!(kind, Kind::Checkbox(_) | Kind::Row | Kind::Break | Kind::Rule | Kind::InlineCode) {
        element.set_attribute("dir", "auto")?;
    }
    Ok(())
}
