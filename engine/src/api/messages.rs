//! Messages and tools of a request: checked, and otherwise as they were sent. What a template makes of them is `text::template`'s.

use serde_json::{Number, Value, json};

use super::fields::{array, invalid, unsupported};
use crate::error::Result;

/// Above it, JavaScript writes numbers with an exponent.
const MAX_PLAIN: f64 = 1e21;

/// The messages of a request: `{role, content, …}`, content a string, null, left out, or parts of text.
///
/// # Errors
/// `InvalidRequest` for what is no message, `UnsupportedField` for parts that are no text.
pub(super) fn messages(value: &Value) -> Result<Value> {
    let list = array("messages", value)?;
    if list.is_empty() {
        return Err(invalid("messages", "is empty"));
    }
    list.iter().enumerate().try_for_each(|(i, m)| check(i, m))?;
    Ok(with_whole_numbers(value))
}

/// The tools of a request.
///
/// # Errors
/// `InvalidRequest` for what is no array.
pub(super) fn tools(value: &Value) -> Result<Value> {
    array("tools", value)?;
    Ok(with_whole_numbers(value))
}

fn check(index: usize, message: &Value) -> Result<()> {
    let field = |name: &str| format!("messages[{index}].{name}");
    if !message.is_object() {
        return Err(invalid(&format!("messages[{index}]"), "must be an object"));
    }
    if !message["role"].is_string() {
        return Err(invalid(&field("role"), "must be a string"));
    }
    match &message["content"] {
        Value::String(_) | Value::Null => Ok(()),
        Value::Array(parts) if parts.iter().all(|part| part["type"] == json!("text") && part["text"].is_string()) => Ok(()),
        Value::Array(_) => Err(unsupported(&field("content"), "only parts of type text are understood")),
        _ => Err(invalid(&field("content"), "must be a string or an array of text parts")),
    }
}

/// `value` with numbers as `JSON.stringify` writes them: JavaScript has no integers, so a whole number is one, whatever its type here.
fn with_whole_numbers(value: &Value) -> Value {
    match value {
        Value::Number(number) => Value::Number(whole(number).unwrap_or_else(|| number.clone())),
        Value::Array(items) => items.iter().map(with_whole_numbers).collect(),
        Value::Object(map) => map.iter().map(|(key, item)| (key.clone(), with_whole_numbers(item))).collect(),
        other => other.clone(),
    }
}

/// A whole number that came as a float, with the digits that JavaScript shows.
fn whole(number: &Number) -> Option<Number> {
    let float = number.as_f64().filter(|x| number.is_f64() && x.fract() == 0.0 && x.abs() < MAX_PLAIN)?;
    let digits = float.to_string();
    digits.parse::<i64>().map(Number::from).or_else(|_| digits.parse::<u64>().map(Number::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_shape() {
        for content in [json!("a"), json!(null), json!([{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }])] {
            let sent = json!([{ "role": "user", "content": content }, { "role": "assistant", "tool_calls": [] }]);
            assert_eq!(messages(&sent).expect("valid"), sent);
        }
        for wrong in [json!([]), json!([1]), json!([{ "content": "a" }]), json!([{ "role": "user", "content": 1 }])] {
            assert!(messages(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn integers_print_as_json_stringify() {
        let sent =
            json!([{ "n": [3.0, -0.0, 1e3, 9_223_372_036_854_775_807_u64 as f64, 1e19, 0.5, 1e300, 1e-7], "i": i64::MIN, "u": u64::MAX }]);
        let want = r#"[{"n":[3,0,1000,9223372036854776000,10000000000000000000,0.5,1e+300,1e-7],"i":-9223372036854775808,"u":18446744073709551615}]"#;
        assert_eq!(tools(&sent).expect("valid").to_string(), want);
    }
}
