//! What the files of the extension refer to, and whether it is there.
//!
//! Seen are: paths in the manifest; `import`, `export … from`, literal `import()` and `new URL(…, import.meta.url)` in
//! modules; `chrome.runtime.getURL` with a literal; `src` and `href` in pages; `url()` and `@import` in style sheets.

use std::collections::BTreeMap;

use anyhow::Result;
use regex_lite::Regex;
use serde_json::Value;

/// The files of the zip: path from the zip's root, `/` between folders, to content.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// Endings by which a string in the manifest is taken for a path.
const PATH_ENDINGS: [&str; 9] = [".js", ".css", ".html", ".json", ".wasm", ".svg", ".png", ".gguf", "*"];

/// One line for each reference of `manifest` or a module, page or style sheet in `files` to a file that is not in `files`.
///
/// # Errors
/// When one of the patterns does not compile, which a test excludes.
pub(crate) fn missing(files: &Files, manifest: &Value) -> Result<Vec<String>> {
    let scanner = Scanner::new()?;
    let mut missing = Vec::new();
    let mut strings = Vec::new();
    strings_in(manifest, &mut strings);
    for string in strings.into_iter().filter(|string| is_path(string)) {
        if !matches_any(string, files) {
            missing.push(format!("manifest.json: {string}"));
        }
    }
    for (path, content) in files {
        let Ok(text) = std::str::from_utf8(content) else {
            continue;
        };
        for reference in scanner.references(path, text) {
            match resolve(path, &reference) {
                Some(target) if is_there(&target, files) => {}
                _ => missing.push(format!("{path}: {reference}")),
            }
        }
    }
    Ok(missing)
}

fn strings_in<'a>(value: &'a Value, strings: &mut Vec<&'a str>) {
    match value {
        Value::String(string) => strings.push(string),
        Value::Array(values) => values.iter().for_each(|value| strings_in(value, strings)),
        Value::Object(fields) => fields.values().for_each(|value| strings_in(value, strings)),
        _ => {}
    }
}

/// Whether a string of the manifest is a path: not a match pattern (`https://*/*`), not prose.
fn is_path(string: &str) -> bool {
    !string.contains("://")
        && !string.contains(char::is_whitespace)
        && string.contains('/')
        && PATH_ENDINGS.iter().any(|ending| string.ends_with(ending))
}

/// Whether a file matches `pattern`, in which one `*` stands for anything.
fn matches_any(pattern: &str, files: &Files) -> bool {
    let pattern = pattern.trim_start_matches('/');
    match pattern.split_once('*') {
        None => files.contains_key(pattern),
        Some((start, end)) => files.keys().any(|path| path.starts_with(start) && path.ends_with(end)),
    }
}

/// Whether `path` is a file, or a folder with files in it.
fn is_there(path: &str, files: &Files) -> bool {
    files.contains_key(path) || files.keys().any(|file| file.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')))
}

/// The path that `reference` in file `from` names; `None` when it leads out of the package or names no file of ours.
fn resolve(from: &str, reference: &str) -> Option<String> {
    let reference = reference.split(['?', '#']).next()?;
    let (mut folders, rest): (Vec<&str>, &str) = match reference.strip_prefix('/') {
        Some(absolute) => (Vec::new(), absolute),
        None => (from.split('/').rev().skip(1).collect::<Vec<_>>().into_iter().rev().collect(), reference),
    };
    for part in rest.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                folders.pop()?;
            }
            name => folders.push(name),
        }
    }
    Some(folders.join("/"))
}

/// Finds references in text.
struct Scanner {
    /// A string (kept) or a comment (dropped) of JavaScript or CSS.
    comments: Regex,
    module: Vec<Regex>,
    /// `chrome.runtime.getURL("…")`, relative to the root.
    rooted: Regex,
    page: Regex,
    style: Regex,
}

impl Scanner {
    fn new() -> Result<Self> {
        Ok(Self {
            comments: Regex::new(r#"(?s)("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)|//[^\n]*|/\*.*?\*/"#)?,
            module: vec![
                Regex::new(r#"(?m)(?:^|[;}\s])(?:import|from)\s*["']([^"'\n]+)["']"#)?,
                Regex::new(r#"\bimport\s*\(\s*["']([^"'\n]+)["']\s*\)"#)?,
                Regex::new(r#"\bnew\s+URL\(\s*["']([^"'\n]+)["']\s*,\s*import\.meta\.url"#)?,
            ],
            rooted: Regex::new(r#"\bgetURL\(\s*["']/?([^"'\n]+)["']\s*\)"#)?,
            page: Regex::new(r#"\b(?:src|href)\s*=\s*["']([^"'\n]+)["']"#)?,
            style: Regex::new(r#"(?:\burl\(\s*["']?|@import\s+["'])([^"')\n]+)"#)?,
        })
    }

    /// What `text`, the content of `path`, refers to; rooted references start with `/`.
    fn references(&self, path: &str, text: &str) -> Vec<String> {
        let captures =
            |pattern: &Regex, text: &str| -> Vec<String> { pattern.captures_iter(text).map(|found| found[1].to_owned()).collect() };
        let found = match path.rsplit_once('.').map(|(_, ending)| ending) {
            Some("js") => {
                let code = self.comments.replace_all(text, "$1");
                let mut found: Vec<String> = self.module.iter().flat_map(|pattern| captures(pattern, &code)).collect();
                found.extend(captures(&self.rooted, &code).into_iter().map(|path| format!("/{path}")));
                found
            }
            Some("html") => captures(&self.page, text),
            Some("css") => captures(&self.style, &self.comments.replace_all(text, "$1")),
            _ => Vec::new(),
        };
        found
            .into_iter()
            .filter(|reference| !reference.starts_with(['#']) && !reference.starts_with("data:") && !reference.contains("://"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Files, Scanner, missing, resolve};
    use serde_json::json;

    fn files(entries: &[(&str, &str)]) -> Files {
        entries.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect()
    }

    #[test]
    fn paths_resolve_from_the_referring_file() {
        assert_eq!(resolve("a/b/c.js", "../d.js").as_deref(), Some("a/d.js"));
        assert_eq!(resolve("a/b/c.html", "/x.css?1").as_deref(), Some("x.css"));
        assert_eq!(resolve("a.js", "../out.js"), None);
    }

    #[test]
    fn references_are_found_outside_comments() {
        let scanner = Scanner::new().expect("patterns compile");
        let module = "/** @type {import(\"./types.d.ts\").T} */\nimport init, { a } from \"./a.js\";\n// import \"./no.js\"\n\
            export * from './b.js';\nconst glob = \"https://*/*\";\nimport\n  './c.js';\nawait import(\"./d.js\");\n\
            new URL('e_bg.wasm', import.meta.url);\nchrome.runtime.getURL('extension/f.html');";
        assert_eq!(scanner.references("x/m.js", module), ["./a.js", "./b.js", "./c.js", "./d.js", "e_bg.wasm", "/extension/f.html"]);
        let page = "<link href='s.css'><script type=module src=\"m.js\"></script><a href=\"https://example.org\">";
        assert_eq!(scanner.references("p.html", page), ["s.css", "m.js"]);
        assert_eq!(scanner.references("s.css", "a { background: url(\"i.svg\") }"), ["i.svg"]);
    }

    #[test]
    fn missing_references_are_named() {
        let present = files(&[
            ("extension/a.js", "import './b.js';"),
            ("extension/b.js", "import './gone.js'; new URL('.', import.meta.url); new URL('../ext', import.meta.url);"),
        ]);
        let manifest = json!({
            "name": "a and/or b.js", "host_permissions": ["http://127.0.0.1/*"],
            "background": { "service_worker": "extension/a.js" },
            "web_accessible_resources": [{ "resources": ["extension/*.js", "extension/icons/*"] }],
        });
        assert_eq!(
            missing(&present, &manifest).expect("patterns compile"),
            ["manifest.json: extension/icons/*", "extension/b.js: ./gone.js", "extension/b.js: ../ext"]
        );
    }
}
