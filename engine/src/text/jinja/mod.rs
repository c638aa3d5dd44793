//! Jinja2 as `transformers` runs it, on `minijinja`.
//!
//! `minijinja` parses and runs the language of Jinja2 and counts what that costs, but its filters, methods and texts of values are not
//! Python's. No other maintained crate is nearer to Jinja2 (tera and askama are other languages), and an interpreter of our own would
//! repeat what `minijinja` does well. So here is what differs:
//! * [`source`] bounds a template and writes its literals, `%` and assignments as `minijinja` takes them;
//! * [`filters`], [`checks`] (the tests), [`strings`] and [`objects`] (methods, functions), [`mod@format`] and [`json`] are Jinja2's and
//!   Python's;
//! * [`data`] bounds what templates build.
//!
//! `tests/fixtures/text/jinja.json` has some hundred expressions with the values that Jinja2 gives.

mod args;
mod checks;
mod clock;
mod data;
mod filters;
mod format;
mod json;
mod literal;
mod objects;
mod pretty;
mod python;
mod sequences;
mod source;
mod strings;
mod wrap;

pub(super) use source::MAX_BYTES;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior, Value};

/// How deep macros, blocks and recursive loops may call one another.
const MAX_CALLS: usize = 60;

/// An environment with the names that templates of `transformers` know, except `strftime_now`: see [`set_clock`].
///
/// # Errors
/// None that a template could cause.
pub(super) fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_recursion_limit(MAX_CALLS);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_formatter(|out, state, value| match value.as_str().filter(|_| value.kind() == ValueKind::String) {
        _ if *state.auto_escape() != AutoEscape::None && !value.is_safe() => {
            out.write_str(&filters::escaped(&python::text(value)?)).map_err(Error::from)
        }
        Some(text) => out.write_str(text).map_err(Error::from),
        None => out.write_str(&python::text(value)?).map_err(Error::from),
    });
    environment.set_unknown_method_callback(|state, value, method, args| {
        filters::charge(state, value)?;
        let result = match value.kind() {
            ValueKind::String => strings::call(value.as_str().unwrap_or_default(), method, args),
            ValueKind::Undefined => return Err(Error::from(ErrorKind::UndefinedError)),
            _ => objects::call(value, method, args),
        };
        result.unwrap_or_else(|| Err(Error::from(ErrorKind::UnknownMethod)))
    });
    filters::add(&mut environment);
    checks::add(&mut environment);
    environment.remove_global("debug");
    for (name, function) in [
        ("range", objects::Range::value as fn(&[Value]) -> python::Result<Value>),
        ("dict", objects::dict),
        ("cycler", objects::Cycler::value),
        ("joiner", objects::Joiner::value),
    ] {
        environment.add_function(name, move |Rest(args): Rest<Value>, kwargs: Kwargs| function(&filters::with_keywords(args, kwargs)));
    }
    let namespace = environment.globals().find(|(name, _)| *name == "namespace").map(|(_, function)| function).unwrap_or_default();
    environment.add_function("namespace", move |state: &mut State<'_, '_>, Rest(args): Rest<Value>, kwargs: Kwargs| {
        namespace.call(state, &[objects::dict(&filters::with_keywords(args, kwargs))?])
    });
    environment.add_function("raise_exception", |message: String| Err::<Value, _>(Error::new(ErrorKind::InvalidOperation, message)));
    environment.add_global("self", Value::from_object(python::Dict::new()));
    environment.add_function(source::KEPT, |state: &mut State<'_, '_>, value: Value| data::kept(state, value));
    environment.add_function(source::MEMBER, |state: &mut State<'_, '_>, value: Value| data::member(state, value));
    environment
        .add_function(source::EACH, |value: Value| if value.is_none() { Err(args::failed("None is not iterable")) } else { Ok(value) });
    environment.add_function(source::COMPARE, |Rest(operands): Rest<Value>| python::compare(&operands));
    environment
        .add_filter(source::ATTRIBUTE, |value: &Value, name: &str| objects::method(value, name).map_or_else(|| value.get_attr(name), Ok));
    environment.add_function(source::REMAINDER, |left: Value, right: Value| python::remainder(&left, &right));
    Ok(environment)
}

/// Sets what `strftime_now` takes for the time: seconds since 1970-01-01 00:00 in the user's time zone.
pub(super) fn set_clock(environment: &mut Environment<'static>, clock: fn() -> u64) {
    environment.add_function("strftime_now", move |format: &str| clock::strftime(format, clock()));
}

/// The source that `minijinja` takes for a template.
///
/// # Errors
/// What is too much or wrong, in words.
pub(super) fn translate(source: &str) -> Result<String, String> {
    source::translate(source)
}
