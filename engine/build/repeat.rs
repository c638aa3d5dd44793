//! `@repeat(i, 0..4)`: what is written once and compiled for each value of i.
//!
//! A name for each value instead of an array: an array that is indexed by a variable lies in memory, not in registers, where a compiler does
//! not unroll the loop around it. The text that is repeated is the rest of the line with what stands before it, or the lines of a block. A
//! block behind an attribute stays a block.
//!
//! ```text
//! @if(wide) @repeat(i, 2..4) var sums_{i} = Square();
//! @repeat(i, 0..4) {
//!   let four = load(at + {i}u);
//!   @repeat(j, 0..2) sums_{i}{j} += four[{j}];
//! }
//! ```

use std::borrow::Cow;
use std::ops::Range;

const MARK: &str = "@repeat(";

/// The text with every repetition written out.
pub(crate) fn expand(source: &str) -> Result<Cow<'_, str>, String> {
    if !source.contains(MARK) {
        return Ok(Cow::Borrowed(source));
    }
    let mut out = String::with_capacity(2 * source.len());
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let Some((before, after)) = line.split_once(MARK).filter(|(before, _)| !before.contains("//")) else {
            out.push_str(line);
            out.push('\n');
            continue;
        };
        let (variable, values, rest) = head(after).ok_or_else(|| format!("`{}`: expected @repeat(name, first..end)", line.trim()))?;
        let body = match rest.trim() {
            "{" => {
                let lines = block(&mut lines).ok_or_else(|| format!("`{}`: its block does not end", line.trim()))?;
                if before.trim().is_empty() { lines } else { format!("{{\n{lines}}}\n") }
            }
            "" => return Err(format!("`{}`: nothing to repeat", line.trim())),
            text => format!("{text}\n"),
        };
        for value in values {
            let written = format!("{before}{}", body.replace(&format!("{{{variable}}}"), &value.to_string()));
            out.push_str(&expand(&written)?);
        }
    }
    Ok(Cow::Owned(out))
}

/// `name, first..end) rest`
fn head(text: &str) -> Option<(&str, Range<u32>, &str)> {
    let (head, rest) = text.split_once(')')?;
    let (name, values) = head.split_once(',')?;
    let (first, end) = values.split_once("..")?;
    let values = first.trim().parse().ok()?..end.trim().parse().ok()?;
    (!values.is_empty()).then_some((name.trim(), values, rest))
}

/// The lines up to the brace that closes a block, without it.
fn block<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Option<String> {
    let mut depth = 1;
    let mut body = String::new();
    for line in lines {
        let count = |brace| line.matches(brace).count();
        depth = depth + count('{') - count('}').min(depth + count('{'));
        if depth == 0 {
            return Some(body);
        }
        body.push_str(line);
        body.push('\n');
    }
    None
}

#[cfg(test)]
mod tests {
    use super::expand;

    fn lines(source: &str) -> Vec<String> {
        expand(source).unwrap().lines().map(|line| line.trim().to_owned()).collect()
    }

    #[test]
    fn repeat_line_keeps_attribute_before_it() {
        assert_eq!(lines("@if(a) @repeat(i, 2..4) let s_{i} = {i}u;"), ["@if(a) let s_2 = 2u;", "@if(a) let s_3 = 3u;"]);
    }

    #[test]
    fn repeat_nested_blocks_expand() {
        let source = "a\n@repeat(i, 0..2) {\n  f({i}) {\n  }\n  @repeat(j, 0..2) s_{i}{j};\n}\nb";
        let expected = ["a", "f(0) {", "}", "s_00;", "s_01;", "f(1) {", "}", "s_10;", "s_11;", "b"];
        assert_eq!(lines(source), expected);
    }

    #[test]
    fn repeat_block_behind_attribute_copies_whole_block() {
        assert_eq!(lines("@if(a) @repeat(i, 0..2) {\n  f({i});\n}"), ["@if(a) {", "f(0);", "}", "@if(a) {", "f(1);", "}"]);
    }

    #[test]
    fn repeat_in_comment_is_kept() {
        let source = "// @repeat(i, 0..2)\nlet a = b;\n";
        assert_eq!(expand(source).unwrap(), source);
    }

    #[test]
    fn repeat_malformed_is_refused_by_cause() {
        for (source, problem) in [
            ("@repeat(i, 0) x;", "expected @repeat(name, first..end)"),
            ("@repeat(i, 2..2) x;", "expected @repeat(name, first..end)"),
            ("@repeat(i, 0..2)", "nothing to repeat"),
            ("@repeat(i, 0..2) {\n x;", "its block does not end"),
        ] {
            let error = expand(source).unwrap_err();
            assert!(error.contains(problem), "{source}: {error}");
        }
    }
}
