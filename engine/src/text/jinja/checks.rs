//! The tests of Jinja2 (`is …`) that `minijinja` lacks, or answers otherwise.

use minijinja::value::ValueKind;
use minijinja::{Environment, Error, Value};

use super::objects::{Cycler, Joiner};
use super::{python, strings};

/// Adds the tests.
pub(super) fn add(environment: &mut Environment<'static>) {
    environment.add_test("callable", |value: &Value| is_callable(value));
    // As in Python: a string can be iterated, `None` cannot.
    environment.add_test("iterable", |value: &Value| match value.kind() {
        ValueKind::None | ValueKind::Bool | ValueKind::Number => false,
        ValueKind::String | ValueKind::Undefined => true,
        _ => value.try_iter().is_ok(),
    });
    environment.add_test("sequence", |value: &Value| match value.kind() {
        ValueKind::String | ValueKind::Undefined | ValueKind::Bytes | ValueKind::Seq | ValueKind::Map => true,
        ValueKind::Iterable => value.downcast_object_ref::<super::objects::Printed>().is_none(),
        _ => false,
    });
    environment.add_test("mapping", |value: &Value| value.downcast_object_ref::<python::Dict>().is_some() || value.is_kwargs());
    environment.add_test("lower", |value: &Value| python::text(value).is_ok_and(|text| strings::is_lower(&text)));
    environment.add_test("upper", |value: &Value| python::text(value).is_ok_and(|text| strings::is_upper(&text)));
    environment.add_test("even", |value: &Value| Ok::<_, Error>(python::remainder(value, &2.into())? == Value::from(0)));
    environment.add_test("odd", |value: &Value| Ok::<_, Error>(python::remainder(value, &2.into())? == Value::from(1)));
    environment.add_test("divisibleby", |value: &Value, by: &Value| Ok::<_, Error>(python::remainder(value, by)? == Value::from(0)));
    environment.remove_test("startingwith");
    environment.remove_test("endingwith");
    environment.remove_test("safe");
}

fn is_callable(value: &Value) -> bool {
    let is_object = value.downcast_object_ref::<Joiner>().is_some() || value.downcast_object_ref::<Cycler>().is_none();
    // An undefined value can be called in Jinja2, and says then that it is not defined.
    value.is_undefined() || (value.kind() == ValueKind::Plain && is_object)
}
