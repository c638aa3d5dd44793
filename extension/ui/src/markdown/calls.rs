//! Calls of tools, in the spellings of the common model families.

use std::ops::Range;

/// A call in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The tool; empty while it is not written yet.
    pub name: String,
    /// As the model wrote them, mostly JSON.
    pub arguments: String,
}

/// Marks of the beginnings and ends of calls. Those without an end go to the end of the answer.
const SPELLINGS: [(&str, &str); 6] = [
    ("<tool_call>", "</tool_call>"),
    ("<|tool_call|>", "<|/tool_call|>"),
    ("<function=", "</function>"),
    ("<|python_tag|>", "<|eom_id|>"),
    ("[TOOL_CALLS]", ""),
    ("<function_call>", "</function_call>"),
];

/// Where the first call that begins a line of `source` is, outside of the ranges `code`, and what it calls.
pub(super) fn find(source: &str, code: &[Range<usize>]) -> Option<(Range<usize>, Vec<Call>)> {
    let (start, open, close) = SPELLINGS.iter().filter_map(|(open, close)| Some((begin(source, open, code)?, *open, *close))).min()?;
    let inside = start + open.len();
    let end = Some(close).filter(|close| !close.is_empty()).and_then(|close| source[inside..].find(close));
    let body = &source[inside..end.map_or(source.len(), |end| inside + end)];
    let calls = if open == "<function=" { vec![named(body)] } else { read(body) };
    Some((start..end.map_or(source.len(), |end| inside + end + close.len()), calls))
}

/// Whether there may be a call in `source`.
pub(super) fn possible(source: &str) -> bool {
    SPELLINGS.iter().any(|(open, _)| source.contains(open))
}

/// Bytes of `source` before its first call: what can be read out.
pub fn before(source: &str) -> &str {
    let start = SPELLINGS.iter().filter_map(|(open, _)| begin(source, open, &[])).min();
    &source[..start.unwrap_or(source.len())]
}

fn begin(source: &str, open: &str, code: &[Range<usize>]) -> Option<usize> {
    source.match_indices(open).map(|(start, _)| start).find(|&start| {
        let line = source[..start].rsplit('\n').next().unwrap_or_default();
        line.trim().is_empty() && !code.iter().any(|range| range.contains(&start))
    })
}

/// The calls in what is between the marks.
fn read(body: &str) -> Vec<Call> {
    let body = body.trim();
    if let Some(list) = body.strip_prefix('[') {
        let mut rest = list;
        let mut calls = Vec::new();
        while let Some(start) = rest.find('{') {
            let object = value(&rest[start..]);
            calls.push(json(object));
            rest = &rest[start + object.len()..];
        }
        if calls.is_empty() { vec![Call { name: String::new(), arguments: list.trim_end_matches(']').to_owned() }] } else { calls }
    } else if body.starts_with('{') {
        vec![json(body)]
    } else if let Some(start) = body.find("<function=") {
        let inside = &body[start + "<function=".len()..];
        vec![named(inside.split("</function>").next().unwrap_or(inside))]
    } else {
        // A name, then arguments: `[TOOL_CALLS]name[ARGS]{…}`, or elements, or a program.
        let name = body.split(['[', '{', '<', '\n']).next().unwrap_or_default();
        let is_name = !name.is_empty() && name.trim().chars().all(|letter| letter.is_alphanumeric() || "_-.".contains(letter));
        let (name, rest) = if is_name { body.split_at(name.len()) } else { ("", body) };
        let arguments = rest.trim().strip_prefix("[ARGS]").unwrap_or(rest).trim();
        vec![Call { name: name.trim().to_owned(), arguments: arguments.to_owned() }]
    }
}

/// `name>arguments`
fn named(body: &str) -> Call {
    let (name, arguments) = body.split_once('>').unwrap_or((body, ""));
    Call { name: name.trim().to_owned(), arguments: arguments.trim().to_owned() }
}

/// A call as a JSON object, which may not be whole yet.
fn json(object: &str) -> Call {
    let name = field(object, "name").unwrap_or_default();
    let arguments = field(object, "arguments").or_else(|| field(object, "parameters"));
    Call { name: name.trim_matches('"').to_owned(), arguments: arguments.unwrap_or_default().to_owned() }
}

/// The value of a key of the outermost object, as it is written.
fn field<'a>(object: &'a str, key: &str) -> Option<&'a str> {
    let mut rest = object.strip_prefix('{')?;
    loop {
        rest = rest.trim_start_matches([',', ' ', '\n', '\r', '\t']);
        let found = rest.strip_prefix('"')?.split_once('"')?;
        let written = found.1.trim_start().strip_prefix(':')?.trim_start();
        let value = value(written);
        if found.0 == key {
            return Some(value.trim_end());
        }
        rest = &written[value.len()..];
        if value.is_empty() {
            return None;
        }
    }
}

/// The JSON value that `text` begins with; all of it if the value does not end.
fn value(text: &str) -> &str {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => {
                in_string = !in_string;
                if !in_string && depth == 0 {
                    return &text[..=index];
                }
            }
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' | b',' if depth == 0 => return &text[..index],
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return &text[..=index];
                }
            }
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::markdown::{Node, parse};

    fn calls(source: &str) -> Vec<(String, String)> {
        let call = |node| if let Node::Call(call) = node { Some((call.name, call.arguments)) } else { None };
        parse(source).into_iter().filter_map(call).collect()
    }

    #[test]
    fn calls_of_all_formats_become_cards() {
        let weather = |arguments: &str| vec![("weather".to_owned(), arguments.to_owned())];
        let args = r#"{"city": "São Paulo", "days": [1, 2], "note": "a \"b\" }"}"#;
        for source in [
            format!("<tool_call>\n{{\"name\": \"weather\", \"arguments\": {args}}}\n</tool_call>"),
            format!("Let me see.\n\n<tool_call>{{\"id\": 1, \"arguments\": {args}, \"name\": \"weather\"}}</tool_call>\n\nDone."),
            format!("<|python_tag|>{{\"name\": \"weather\", \"parameters\": {args}}}<|eom_id|>"),
            format!("[TOOL_CALLS][{{\"name\": \"weather\", \"arguments\": {args}}}]"),
            format!("[TOOL_CALLS]weather[ARGS]{args}"),
            format!("<|tool_call|>[{{\"name\": \"weather\", \"arguments\": {args}}}]<|/tool_call|>"),
            format!("<function=weather>{args}</function>"),
            format!("<tool_call>\n<function=weather>\n{args}\n</function>\n</tool_call>"),
        ] {
            assert_eq!(calls(&source), weather(args), "{source}");
        }
        let two = r#"[TOOL_CALLS][{"name": "a", "arguments": {}}, {"name": "b", "arguments": {}}]"#;
        assert_eq!(calls(two).into_iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b"]);
        let around = parse("Before.\n\n<tool_call>{\"name\": \"a\"}</tool_call>\n\nAfter.");
        assert!(matches!(&around[..], [Node::Element(..), Node::Call(_), Node::Element(..)]), "{around:?}");
    }

    #[test]
    fn calls_partial_become_cards() {
        let whole = r#"<tool_call>{"name": "weather", "arguments": {"city": "Oslo é", "x": [1, {"y": "\\\""}]}}</tool_call>"#;
        for (end, _) in whole.char_indices().skip("<tool_call>".len()) {
            let found = calls(&whole[..end]);
            assert_eq!(found.len(), 1, "{}", &whole[..end]);
            assert!("weather".starts_with(&found[0].0), "{found:?}");
        }
        assert_eq!(calls("<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Os")[0].1, "{\"city\": \"Os");
    }

    #[test]
    fn calls_mentioned_in_text_stay_text() {
        for source in ["the mark <tool_call> begins it", "`<tool_call>`", "```\n<tool_call>\n{}\n</tool_call>\n```"] {
            assert_eq!(calls(source), [], "{source}");
        }
    }
}
