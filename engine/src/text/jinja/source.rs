//! The source of a template: bounded before the parser sees it, and Jinja2's where `minijinja` reads another language.
//!
//! One pass over the tokens of every tag
//! * refuses sources that are too long, nest too deep or chain too many operators: the parser and what it builds recurse;
//! * writes string and number literals as Python reads them;
//! * writes `a % b` as a call, for a string on the left means formatting, and `a < b`, for values of different types have no order;
//! * writes `a.upper` and other methods that are not called as filters;
//! * sends whatever builds or names data (literals, `set`) through [`kept`](super::data), which bounds it;
//! * takes `{% generation %}`, with which `transformers` marks text for training, as a block that says nothing.

use super::{literal, objects};

/// Bytes of a template. The longest of real models has 40 KB.
pub(in crate::text) const MAX_BYTES: usize = 128 << 10;
/// Brackets and blocks within one another, [`NESTING_WEIGHT`] each, and operators in a row, one each.
const MAX_DEPTH: usize = 400;
const NESTING_WEIGHT: usize = 5;
/// Tokens of one tag.
const MAX_TOKENS: usize = 20_000;

/// Called for `a % b`.
pub(super) const REMAINDER: &str = "__remainder";
/// Called with the operands and operators of `a < b <= c`.
pub(super) const COMPARE: &str = "__compare";
/// The filter for `a.name` where `name` is a method of Python's types.
pub(super) const ATTRIBUTE: &str = "__attribute";
/// Called for the value of `{% set name = … %}` and for literals.
pub(super) const KEPT: &str = "__kept";
/// Called for what `{% for … in … %}` goes through.
pub(super) const EACH: &str = "__each";
/// Called for the value of `{% set namespace.name = … %}`.
pub(super) const MEMBER: &str = "__member";

/// The comparisons that need an order, and all that can stand in a row with them.
const ORDERINGS: [&str; 4] = ["<", ">", "<=", ">="];
const COMPARISONS: [&str; 6] = ["<", ">", "<=", ">=", "==", "!="];
const OPERATORS: [&str; 6] = ["**", "//", "==", "!=", ">=", "<="];
const KEYWORDS: [&str; 7] = ["and", "or", "not", "in", "if", "else", "is"];
const BLOCKS: [&str; 9] = ["if", "for", "macro", "call", "filter", "with", "block", "autoescape", "generation"];

/// The source that `minijinja` takes for the template `source` of Jinja2.
///
/// # Errors
/// What is too much or wrong, in words.
pub(super) fn translate(source: &str) -> Result<String, String> {
    if source.len() > MAX_BYTES {
        return Err(format!("it has {} bytes; up to {MAX_BYTES} are read", source.len()));
    }
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len() * 2);
    let mut blocks = Blocks::default();
    let mut rest = source.as_str();
    while let Some(start) = rest.find('{') {
        let kind = rest[start + 1..].chars().next();
        out.push_str(&rest[..=start]);
        rest = &rest[start + 1..];
        let end = match kind {
            Some('#') => {
                let end = rest.find("#}").ok_or("a comment has no end")? + 2;
                out.push_str(&rest[..end]);
                end
            }
            Some('{') => {
                let (tag, end) = Tag::read(&rest[1..], "}}", blocks.depth)?;
                out.push('{');
                tag.write(&mut out)?;
                1 + end
            }
            Some('%') => {
                let (mut tag, end) = Tag::read(&rest[1..], "%}", blocks.depth)?;
                out.push('%');
                let verbatim = tag.is(&["raw"]);
                blocks.enter(&mut tag)?;
                tag.write(&mut out)?;
                if verbatim { 1 + end + verbatim_end(&rest[1 + end..], &mut out)? } else { 1 + end }
            }
            _ => 0,
        };
        rest = &rest[end..];
    }
    Ok(out + rest)
}

/// Copies a `{% raw %}` block up to where its end tag begins; how many bytes that are.
fn verbatim_end(rest: &str, out: &mut String) -> Result<usize, String> {
    let mut from = 0;
    while let Some(at) = rest[from..].find("{%").map(|at| from + at) {
        if rest[at + 2..].trim_start_matches(['-', '+']).trim_start().starts_with("endraw") {
            out.push_str(&rest[..at]);
            return Ok(at);
        }
        from = at + 2;
    }
    Err("a raw block has no end".to_owned())
}

/// Blocks that are open, with how many `elif` each has: a nest in the parser.
#[derive(Default)]
struct Blocks {
    open: Vec<usize>,
    depth: usize,
}

impl Blocks {
    fn enter(&mut self, tag: &mut Tag) -> Result<(), String> {
        let first = tag.tokens.first().map_or("", |t| t.text.as_str()).to_owned();
        let opens = BLOCKS.contains(&first.as_str()) || (first == "set" && tag.assignment().is_none());
        if opens || first == "elif" {
            if opens {
                self.open.push(0);
            }
            if let Some(last) = self.open.last_mut() {
                *last += NESTING_WEIGHT;
                self.depth += NESTING_WEIGHT;
            }
            too_deep(self.depth)?;
        } else if first.starts_with("end") && first != "endraw" {
            self.depth -= self.open.pop().unwrap_or(0);
        }
        if tag.is(&["generation"]) || tag.is(&["endgeneration"]) {
            "if true".clone_into(&mut tag.tokens[0].text);
            if first == "endgeneration" {
                "endif".clone_into(&mut tag.tokens[0].text);
            }
        }
        Ok(())
    }
}

fn too_deep(depth: usize) -> Result<(), String> {
    if depth > MAX_DEPTH { Err("it nests too deep or chains too many operators".to_owned()) } else { Ok(()) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Name,
    Number,
    String,
    Operator,
}

/// A token, the space before it, and what the translation puts around it.
struct Token {
    kind: Kind,
    space: String,
    before: String,
    text: String,
    after: String,
}

impl Token {
    fn is(&self, text: &str) -> bool {
        self.kind != Kind::String && self.text == text
    }

    /// Whether an operand can end with it, so that a bracket behind it is a call or a subscript, and a minus is binary.
    fn ends_operand(&self) -> bool {
        match self.kind {
            Kind::Name => !KEYWORDS.contains(&self.text.as_str()),
            Kind::Number | Kind::String => true,
            Kind::Operator => matches!(self.text.as_str(), ")" | "]" | "}"),
        }
    }
}

/// The inside of a `{{ … }}` or `{% … %}`.
struct Tag {
    tokens: Vec<Token>,
    /// `-` or `+` right behind the opening, and everything from the last token to behind the closing.
    opening: String,
    closing: String,
    is_block: bool,
}

/// One bracket level while a tag is translated.
#[derive(Default)]
struct Level {
    /// Index of the bracket.
    open: usize,
    literal: bool,
    has_comma: bool,
    /// Where the product that is being read begins, and whether its last factor is the right side of a `%`.
    term: usize,
    in_remainder: bool,
    /// Where the comparison that is being read begins, and its operators so far.
    comparison: usize,
    compared: Vec<usize>,
    /// Operators since the last comma.
    chain: usize,
}

impl Tag {
    /// Reads the tokens of a tag whose inside begins at `text`; how many bytes it takes with its closing.
    fn read(text: &str, closing: &str, depth: usize) -> Result<(Self, usize), String> {
        let opening: String = text.chars().next().filter(|c| matches!(c, '-' | '+')).into_iter().collect();
        let mut tag = Self { tokens: Vec::new(), opening, closing: String::new(), is_block: closing == "%}" };
        let mut at = tag.opening.len();
        let mut braces = 0_usize;
        loop {
            let space = text[at..].len() - text[at..].trim_start().len();
            let rest = &text[at + space..];
            let first = rest.chars().next().ok_or("a tag has no end")?;
            let ends = rest.starts_with(closing) || (matches!(first, '-' | '+') && rest[1..].starts_with(closing));
            if ends && first == '+' && !tag.is_block {
                return Err("a + ends a tag".to_owned());
            }
            if ends && braces == 0 {
                let end = at + space + closing.len() + usize::from(!rest.starts_with(closing));
                text[at..end].clone_into(&mut tag.closing);
                tag.translate(depth)?;
                return Ok((tag, end));
            }
            if tag.tokens.len() == MAX_TOKENS {
                return Err(format!("a tag has more than {MAX_TOKENS} parts"));
            }
            let (kind, length) = token(rest, first)?;
            match &rest[..length] {
                "{" => braces += 1,
                "}" => braces = braces.saturating_sub(1),
                _ => {}
            }
            let (space_text, token_text) = (text[at..at + space].to_owned(), &rest[..length]);
            let token_text = match kind {
                Kind::String => literal::string(token_text),
                Kind::Number => literal::number(token_text),
                _ => token_text.to_owned(),
            };
            tag.tokens.push(Token { kind, space: space_text, before: String::new(), text: token_text, after: String::new() });
            at += space + length;
        }
    }

    /// Whether the tag has just these words.
    fn is(&self, words: &[&str]) -> bool {
        self.tokens.len() == words.len() && self.tokens.iter().zip(words).all(|(token, word)| token.is(word))
    }

    /// Index of the `=` of `{% set … = … %}`.
    fn assignment(&self) -> Option<usize> {
        self.outside_brackets().find(|i| self.tokens[*i].is("="))
    }

    /// Indices of the tokens that stand in no bracket.
    fn outside_brackets(&self) -> impl Iterator<Item = usize> {
        let mut depth = 0_usize;
        self.tokens.iter().enumerate().filter_map(move |(i, token)| {
            match token.text.as_str() {
                "(" | "[" | "{" if token.kind == Kind::Operator => depth += 1,
                ")" | "]" | "}" if token.kind == Kind::Operator => depth = depth.saturating_sub(1),
                _ => {}
            }
            (depth == 0).then_some(i)
        })
    }

    fn translate(&mut self, depth: usize) -> Result<(), String> {
        let mut levels = vec![Level::default()];
        for i in 0..self.tokens.len() {
            self.step(i, &mut levels);
            too_deep(depth + levels.iter().map(|l| l.chain + NESTING_WEIGHT).sum::<usize>() - NESTING_WEIGHT)?;
        }
        if let (Some(level), Some(last)) = (levels.last_mut(), self.tokens.len().checked_sub(1)) {
            self.close_comparison(level, last);
            if !self.is_block && level.has_comma {
                self.wrap(0, last, KEPT);
            }
        }
        self.bound_assignment();
        self.check_loop();
        Ok(())
    }

    /// Goes on to token `i`, with the bracket levels that are open before it.
    fn step(&mut self, i: usize, levels: &mut Vec<Level>) {
        let previous = i.checked_sub(1).map(|p| &self.tokens[p]);
        let follows_operand = previous.is_some_and(Token::ends_operand) && !(self.is_block && i == 1);
        let names_test = previous.is_some_and(|p| p.is("is") || (p.is("not") && i >= 2 && self.tokens[i - 2].is("is")));
        let token = &self.tokens[i];
        if matches!(token.kind, Kind::String | Kind::Number) {
            return;
        }
        if token.kind == Kind::Operator && matches!(token.text.as_str(), ")" | "]" | "}") && levels.len() > 1 {
            return self.close(i, levels);
        }
        let Some(level) = levels.last_mut() else { return };
        match token.text.as_str() {
            "(" | "[" | "{" => {
                level.chain += usize::from(follows_operand);
                let target = self.is_block && i == 1;
                levels.push(Level { open: i, literal: !follows_operand && !target, term: i + 1, comparison: i + 1, ..Level::default() });
            }
            "%" if follows_operand => {
                self.close_remainder(level, i - 1);
                level.in_remainder = true;
                level.chain += 1;
                self.tokens[level.term].before.insert_str(0, &format!("{REMAINDER}("));
                ",".clone_into(&mut self.tokens[i].text);
            }
            "*" | "/" | "//" => {
                level.chain += 1;
                self.close_remainder(level, i.saturating_sub(1));
            }
            "+" if !follows_operand => self.tokens[i].text.clear(),
            "-" if !follows_operand => {
                level.chain += 1;
                self.negate_truth(i + 1);
            }
            "." if self.is_attribute(i) => {
                level.chain += 1;
                "|".clone_into(&mut self.tokens[i].text);
                self.tokens[i + 1].text = format!("{ATTRIBUTE}(\"{}\")", self.tokens[i + 1].text);
            }
            "." | "|" | "**" | "is" => level.chain += 1,
            "not" if names_test => {}
            "," | ":" => {
                level.has_comma |= token.is(",");
                level.chain = 0;
                self.end_comparison(level, i);
            }
            "-" | "+" | "~" => {
                level.chain += 1;
                self.end_term(level, i);
            }
            comparison if COMPARISONS.contains(&comparison) => {
                level.chain += 1;
                self.end_term(level, i);
                level.compared.push(i);
            }
            word if !names_test && (word == "=" || KEYWORDS.contains(&word) || (self.is_block && i == 0)) => {
                level.chain += 1;
                self.end_comparison(level, i);
            }
            _ => {}
        }
    }

    fn close(&mut self, i: usize, levels: &mut Vec<Level>) {
        let Some(mut level) = levels.pop() else { return };
        self.close_comparison(&mut level, i - 1);
        let tuple = level.has_comma || level.open + 1 == i;
        if level.literal && (self.tokens[i].text != ")" || tuple) {
            self.tokens[level.open].before += &[KEPT, "("].concat();
            self.tokens[i].after.push(')');
        }
    }

    /// Whether the dot at `i` reads a method without calling it, or anything else by a method's name.
    fn is_attribute(&self, i: usize) -> bool {
        let target = self.is_block && self.tokens[0].is("set") && !self.tokens[..i].iter().any(|token| token.is("="));
        let name = self.tokens.get(i + 1).filter(|name| name.kind == Kind::Name && objects::is_method(&name.text));
        name.is_some() && !target && !self.tokens.get(i + 2).is_some_and(|next| ["(", ".", "["].iter().any(|text| next.is(text)))
    }

    /// Writes the truth value at `i`, which is negated, as the number that it is in Python.
    fn negate_truth(&mut self, i: usize) {
        let Some(token) = self.tokens.get_mut(i).filter(|token| token.kind == Kind::Name) else { return };
        match token.text.as_str() {
            "true" | "True" => "1".clone_into(&mut token.text),
            "false" | "False" => "0".clone_into(&mut token.text),
            _ => {}
        }
    }

    fn end_comparison(&mut self, level: &mut Level, i: usize) {
        self.close_comparison(level, i.saturating_sub(1));
        level.term = i + 1;
        level.comparison = i + 1;
    }

    /// Writes the comparison that ends at `last` as a call if it needs an order.
    fn close_comparison(&mut self, level: &mut Level, last: usize) {
        self.close_remainder(level, last);
        let operators = std::mem::take(&mut level.compared);
        if !operators.iter().any(|i| ORDERINGS.contains(&self.tokens[*i].text.as_str())) {
            return;
        }
        for i in operators {
            self.tokens[i].text = format!(", \"{}\",", self.tokens[i].text);
        }
        self.tokens[level.comparison].before.insert_str(0, &format!("{COMPARE}("));
        self.tokens[last].after.push(')');
    }

    fn end_term(&mut self, level: &mut Level, i: usize) {
        self.close_remainder(level, i.saturating_sub(1));
        level.term = i + 1;
    }

    fn close_remainder(&mut self, level: &mut Level, last: usize) {
        if std::mem::take(&mut level.in_remainder) {
            self.tokens[last].after.push(')');
        }
    }

    /// `{% set a = b %}` with `b` bounded.
    fn bound_assignment(&mut self) {
        if !self.is_block || !self.tokens.first().is_some_and(|t| t.is("set")) {
            return;
        }
        let Some(at) = self.assignment().filter(|at| at + 1 < self.tokens.len()) else { return };
        let function = if self.tokens[..at].iter().any(|t| t.is(".")) { MEMBER } else { KEPT };
        self.wrap(at + 1, self.tokens.len() - 1, function);
    }

    /// `{% for a in b if c %}` with `b` checked.
    fn check_loop(&mut self) {
        if !self.is_block || !self.tokens.first().is_some_and(|t| t.is("for")) {
            return;
        }
        let top: Vec<usize> = self.outside_brackets().collect();
        let Some(start) = top.iter().position(|i| self.tokens[*i].is("in")) else { return };
        let end = top[start..].iter().find(|i| self.tokens[**i].is("if") || self.tokens[**i].is("recursive"));
        let (first, last) = (top[start] + 1, end.map_or(self.tokens.len(), |end| *end) - 1);
        if first <= last {
            self.wrap(first, last, EACH);
        }
    }

    /// A call of `function` around the tokens from `first` to `last`.
    fn wrap(&mut self, first: usize, last: usize, function: &str) {
        self.tokens[first].before.insert_str(0, &format!("{function}(("));
        self.tokens[last].after.push_str("))");
    }

    fn write(&self, out: &mut String) -> Result<(), String> {
        out.push_str(&self.opening);
        for Token { space, before, text, after, .. } in &self.tokens {
            for part in [space, before, text, after] {
                out.push_str(part);
            }
        }
        out.push_str(&self.closing);
        if out.len() > 8 * MAX_BYTES { Err("it is too long".to_owned()) } else { Ok(()) }
    }
}

/// Kind and length of the token at the beginning of `rest`.
fn token(rest: &str, first: char) -> Result<(Kind, usize), String> {
    let run = |is_in: &dyn Fn(char) -> bool| rest.find(|c| !is_in(c)).unwrap_or(rest.len());
    Ok(match first {
        '\'' | '"' => (Kind::String, literal::string_length(rest).ok_or("a string has no end")?),
        c if c.is_ascii_digit() => (Kind::Number, literal::number_length(rest)),
        c if c == '_' || c.is_alphabetic() => (Kind::Name, run(&|c| c == '_' || c.is_alphanumeric())),
        _ => {
            let double = OPERATORS.iter().find(|operator| rest.starts_with(**operator));
            (Kind::Operator, double.map_or(first.len_utf8(), |operator| operator.len()))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_rewrites_literals_remainders_and_assignments() {
        for (source, want) in [
            ("a {{ x.y }} {# % #} {% if a %}b{% endif %}", "a {{ x.y }} {# % #} {% if a %}b{% endif %}"),
            ("{{ a % b }}", "{{ __remainder(a , b) }}"),
            ("{{ 1 + a % b % c * 2 - 1 }}", "{{ 1 + __remainder(__remainder(a , b) , c) * 2 - 1 }}"),
            ("{% if not i % 2 == 0 %}", "{% if not __remainder(i , 2) == 0 %}"),
            ("{{ -a.b(c % d) ** 2 % 3 if x }}", "{{ __remainder(-a.b(__remainder(c , d)) ** 2 , 3) if x }}"),
            ("{{ '%s' % (a, b) }}", "{{ __remainder(\"%s\" , __kept((a, b))) }}"),
            ("{% set a = [1] %}", "{% set a = __kept((__kept([1]))) %}"),
            ("{%- set n.a = 'x\\\n\\x41' -%}", "{%- set n.a = __member((\"xA\")) -%}"),
            ("{% set a | f(b=1) %}x{% endset %}", "{% set a | f(b=1) %}x{% endset %}"),
            ("{% for (a, b) in {} %}{% endfor %}", "{% for (a, b) in __each((__kept({}))) %}{% endfor %}"),
            ("{{ {'a': {'b': (1)}}['a'] }}", "{{ __kept({\"a\": __kept({\"b\": (1)})})[\"a\"] }}"),
            ("{% raw %}{{ 1 % 2 }}{% endraw %}{{ 0x1f }}", "{% raw %}{{ 1 % 2 }}{% endraw %}{{ 31 }}"),
            ("{{ a < b.c|d + 1 <= e == f and g == h }}", "{{ __compare(a , \"<\", b.c|d + 1 , \"<=\", e , \"==\", f) and g == h }}"),
            (
                "{% if not a % 2 > (b < c) if [d] > e %}",
                "{% if not __compare(__remainder(a , 2) , \">\", (__compare(b , \"<\", c))) if __compare(__kept([d]) , \">\", e) %}",
            ),
            (
                "{% set a.index = b.index + c.title() + d.items.e %}",
                "{% set a.index = __member((b|__attribute(\"index\") + c.title() + d.items.e)) %}",
            ),
            ("{%- generation -%}x{%- endgeneration -%}", "{%- if true -%}x{%- endif -%}"),
        ] {
            assert_eq!(translate(source).as_deref(), Ok(want), "{source}");
        }
        for source in ["{{ 'a }}", "{% if", "{# x", "{% raw %}x"] {
            assert!(translate(source).is_err(), "{source}");
        }
    }

    #[test]
    fn source_nested_too_deep_is_refused() {
        let n = 100_000;
        for (source, wide) in [
            (format!("{{{{ {}1 }}}}", "-".repeat(n)), false),
            (format!("{{{{ {}1 }}}}", "not ".repeat(n / 2)), false),
            (format!("{{{{ 1{} }}}}", " and 1".repeat(n / 4)), false),
            (format!("{{{{ 1{} }}}}", " ** 1".repeat(n / 4)), false),
            (format!("{{{{ 1{} }}}}", " % 1".repeat(n / 4)), false),
            (format!("{{{{ x{} }}}}", "()".repeat(n)), false),
            (format!("{{{{ x{} }}}}", "[0]".repeat(n / 2)), false),
            (format!("{{{{ x{} }}}}", "|upper".repeat(n / 4)), false),
            (format!("{{{{ x{} }}}}", " is eq 1".repeat(n / 4)), false),
            (format!("{{{{ {} }}}}", "[".repeat(n)), false),
            (format!("{{{{ 1{} }}}}", " if 1 else 1".repeat(n / 8)), false),
            ("{% if 1 %}".repeat(n / 8), false),
            (format!("{{% if 1 %}}{}", "{% elif 1 %}".repeat(n / 8)), false),
            ("{{ 1 }}".repeat(n / 8), true),
            (format!("{{{{ [{}] }}}}", "1, ".repeat(9000)), true),
        ] {
            assert_eq!(translate(&source).is_ok(), wide, "{}…", &source[..20]);
        }
        assert!(translate(&"x".repeat(MAX_BYTES + 1)).is_err());
    }
}
