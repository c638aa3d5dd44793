//! The few DOM operations the views are made of.

use wasm_bindgen::{JsCast, JsValue};
use web_sys::{Document, Element, HtmlElement, HtmlTemplateElement, Window};

/// The window.
///
/// # Errors
/// Outside a window, such as in a worker.
pub(crate) fn window() -> Result<Window, JsValue> {
    web_sys::window().ok_or_else(|| JsValue::from_str("the popup runs in a window"))
}

/// The document.
///
/// # Errors
/// Outside a window.
pub(crate) fn document() -> Result<Document, JsValue> {
    window()?.document().ok_or_else(|| JsValue::from_str("the window has a document"))
}

/// The element of `popup.html` with this id.
///
/// # Errors
/// When there is none of type `T`.
pub(crate) fn by_id<T: JsCast>(id: &str) -> Result<T, JsValue> {
    let element = document()?.get_element_by_id(id).and_then(|element| element.dyn_into().ok());
    element.ok_or_else(|| JsValue::from_str(&format!("popup.html has no fitting #{id}")))
}

/// A new element.
///
/// # Errors
/// When `tag` is not a tag name.
pub(crate) fn create(tag: &str) -> Result<Element, JsValue> {
    document()?.create_element(tag)
}

/// A copy of the one element inside the `<template>` with this id.
///
/// # Errors
/// When there is no such template.
pub(crate) fn instantiate(template: &str) -> Result<HtmlElement, JsValue> {
    let content = by_id::<HtmlTemplateElement>(template)?.content();
    let first = content.first_element_child().ok_or_else(|| JsValue::from_str("an empty template"))?;
    Ok(first.clone_node_with_deep(true)?.dyn_into()?)
}

/// The first descendant of `element` that matches `selector`.
///
/// # Errors
/// When there is none.
pub(crate) fn find(element: &Element, selector: &str) -> Result<HtmlElement, JsValue> {
    let found = element.query_selector(selector)?.and_then(|found| found.dyn_into().ok());
    found.ok_or_else(|| JsValue::from_str(&format!("a template has no {selector}")))
}

/// Sets the text of `element` unless it is that already: an unchanged text is not laid out again.
pub(crate) fn set_text(element: &Element, text: &str) {
    if element.text_content().as_deref() != Some(text) {
        element.set_text_content(Some(text));
    }
}

/// Shows or hides `element`.
pub(crate) fn show(element: &HtmlElement, visible: bool) {
    if element.hidden() == visible {
        element.set_hidden(!visible);
    }
}

/// Lets `button` offer to load a model with so many tokens of context, or hides it.
///
/// # Errors
/// Those of the DOM; none is expected.
pub(crate) fn offer_context(button: &HtmlElement, fitting: Option<(String, u32)>) -> Result<(), JsValue> {
    show(button, fitting.is_some());
    let Some((id, context)) = fitting else { return Ok(()) };
    set_text(button, &format!("Load with {context} tokens"));
    button.set_attribute("data-id", &id)?;
    button.set_attribute("data-context", &context.to_string())
}
