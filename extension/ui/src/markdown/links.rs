//! Addresses that stand in a text as they are.

use linkify::{LinkFinder, LinkKind};

use super::{Kind, Node, safe_address};

/// Makes links of the addresses in the texts of `nodes` that are not in a link already.
pub(super) fn mark(nodes: Vec<Node>) -> Vec<Node> {
    nodes
        .into_iter()
        .flat_map(|node| match node {
            Node::Text(text) if text.contains("://") => split(text),
            // HTML is shown as it was written.
            Node::Element(kind @ (Kind::Link(_) | Kind::InlineCode | Kind::Raw), children) => vec![Node::Element(kind, children)],
            Node::Element(kind, children) => vec![Node::Element(kind, mark(children))],
            node => vec![node],
        })
        .collect()
}

fn split(text: String) -> Vec<Node> {
    let mut finder = LinkFinder::new();
    finder.kinds(&[LinkKind::Url]);
    let mut nodes = Vec::new();
    let mut at = 0;
    for link in finder.links(&text) {
        let Some(address) = safe_address(link.as_str()) else { continue };
        if at < link.start() {
            nodes.push(Node::Text(text[at..link.start()].to_owned()));
        }
        nodes.push(Node::Element(Kind::Link(address.clone()), vec![Node::Text(address)]));
        at = link.end();
    }
    if at == 0 {
        return vec![Node::Text(text)];
    }
    if at < text.len() {
        nodes.push(Node::Text(text[at..].to_owned()));
    }
    nodes
}
